package site

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var lives = flag.Int("site.lives", 6, "how many lives of fleets TestSimulation plays")

// What the package's comment promises, with what the simulated network adds: heartbeats notice a loss after 3 s, records take up to
// recordDelay, clocks tick once a second.
const (
	recordDelay = 3 * time.Second
	slack       = 2*recordDelay + 5*time.Second
	// oneWithin is how long two may act that have been together all the time, noneWithin how long nobody may. The longest way to
	// one site: the one that hears multicast waits for those that it has left, then the one that relies on it waits for its own.
	oneWithin  = 2*LeaveAfter + JoinAfter + slack
	noneWithin = 2*LeaveAfter + JoinAfter + Regain + slack
	// calm is how long after the last event all must agree and nothing change any more.
	calm = noneWithin + 2*Settle + slack
)

// simDevice is a device with its engine.
type simDevice struct {
	id      string
	place   int
	awake   bool
	running bool
	deaf    bool // hears no multicast, but is heard
	blind   bool // its clock stands still while it sleeps, and it doesn't notice
	facts   Facts
	node    *Node
	clock   time.Duration
	view    View
	dir     map[string]simRecord // what it holds of everybody's records
	version int
}

type simRecord struct {
	version int
	Record
}

type letter struct {
	at   time.Duration
	to   string
	from string
	rec  simRecord
}

// world is a fleet on its networks.
type world struct {
	r       *rand.Rand
	now     time.Duration
	devices []*simDevice
	cut     map[[2]int]bool          // pairs of devices that can't reach each other
	lost    map[[2]int]time.Duration // since when a pair has been out of reach
	mail    []letter
	log     []string
	// together is since when a pair has been together without a break; both since when two of them act, none since when
	// nobody of a place does.
	together map[[2]int]time.Duration
	both     map[[2]int]time.Duration
	none     map[string]time.Duration
	changes  int // of postmasters, as its own device sees it
	events   int
}

func newWorld(seed uint64) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 7)), cut: map[[2]int]bool{}, lost: map[[2]int]time.Duration{},
		together: map[[2]int]time.Duration{}, both: map[[2]int]time.Duration{}, none: map[string]time.Duration{}}
	for i := range 2 + w.r.IntN(6) {
		d := &simDevice{id: string(rune('a' + i)), place: w.r.IntN(3), awake: true, deaf: w.r.IntN(5) == 0, blind: w.r.IntN(4) == 0,
			dir: map[string]simRecord{}, clock: time.Duration(w.r.Int64N(int64(time.Hour)))}
		w.refit(d)
		w.devices = append(w.devices, d)
	}
	for _, d := range w.devices {
		for _, o := range w.devices {
			d.dir[o.id] = simRecord{}
		}
		w.start(d)
	}
	return w
}

// refit gives a device other surroundings and a clock that may be years off.
func (w *world) refit(d *simDevice) {
	d.facts.Power = []Power{Mains, Mains, Battery, PowerUnknown}[w.r.IntN(4)]
	d.facts.Link = []Link{Wired, Wireless, Wireless, LinkUnknown}[w.r.IntN(4)]
}

func (w *world) start(d *simDevice) {
	d.running = true
	d.node = New(d.id, d.dir[d.id].Record)
	d.facts.Up = time.Unix(1700000000, 0).Add(w.now + time.Duration(w.r.IntN(5)-2)*9999*time.Hour + time.Duration(w.r.Int64N(int64(time.Second)))).UTC()
}

func pairOf(i, j int) [2]int { return [2]int{min(i, j), max(i, j)} }

// reach says whether two devices could speak now, together whether they also share a link.
func (w *world) reach(i, j int) bool {
	a, b := w.devices[i], w.devices[j]
	return a.awake && b.awake && a.running && b.running && !w.cut[pairOf(i, j)]
}

func (w *world) near(i, j int) bool {
	return w.reach(i, j) && w.devices[i].place == w.devices[j].place && !(w.devices[i].deaf && w.devices[j].deaf)
}

// connected is what the heartbeat says: a loss is noticed late.
func (w *world) connected(i, j int) bool {
	since, lost := w.lost[pairOf(i, j)]
	return !lost || w.now-since < 3*time.Second
}

func (w *world) disturb() {
	i := w.r.IntN(len(w.devices))
	d := w.devices[i]
	w.events++
	note := func(what string) { w.log = append(w.log, fmt.Sprintf("%v %s %s", w.now, d.id, what)) }
	switch w.r.IntN(10) {
	case 0, 1:
		d.place = w.r.IntN(3)
		note(fmt.Sprint("moves to ", d.place))
	case 2, 3:
		d.awake = !d.awake
		note(fmt.Sprint("is awake: ", d.awake))
	case 4:
		w.refit(d)
		note(fmt.Sprintf("runs on %+v", d.facts))
	case 5, 6:
		j := w.r.IntN(len(w.devices))
		w.cut[pairOf(i, j)] = !w.cut[pairOf(i, j)]
		note(fmt.Sprint("is cut from ", w.devices[j].id, ": ", w.cut[pairOf(i, j)]))
	case 7:
		if d.running && d.awake {
			if w.r.IntN(2) == 0 {
				w.tick(i, true)
				note("says goodbye")
			} else {
				note("is killed")
			}
			d.running = false
		}
	case 8:
		if !d.running {
			w.start(d)
			note("starts")
		}
	default:
		clear(w.cut)
		note("heals all")
	}
}

// tick runs one device.
func (w *world) tick(i int, away bool) {
	d := w.devices[i]
	in := Input{Now: d.clock, Away: away, Facts: d.facts, Records: map[string]Record{}}
	for id, r := range d.dir {
		in.Records[id] = r.Record
	}
	for j, o := range w.devices {
		if i == j {
			continue
		}
		p := Peer{ID: o.id, Connected: w.connected(i, j), Trip: time.Duration(9+w.r.IntN(60)) * ms}
		if o.place == d.place {
			p.Trip = time.Duration(1 + w.r.Int64N(int64(Near)))
			p.OnLink = !d.deaf
		}
		in.Peers = append(in.Peers, p)
	}
	w.r.Shuffle(len(in.Peers), func(a, b int) { in.Peers[a], in.Peers[b] = in.Peers[b], in.Peers[a] })
	was := d.view.Here.Postmaster
	view, rec := d.node.Tick(in)
	b, err := rec.Encode()
	if err != nil {
		panic(err)
	}
	if read, err := Decode(b); err != nil || !read.Equal(rec) {
		panic(fmt.Sprintf("what is said isn't what is read: %+v, %+v, %v", rec, read, err))
	}
	if view.Here.Postmaster != was && view.Here.Postmaster == d.id && len(view.Here.Members) > 1 {
		w.changes++
	}
	d.view = view
	if !rec.Equal(d.dir[d.id].Record) {
		d.version++
		d.dir[d.id] = simRecord{d.version, rec}
		if away {
			w.send(i, d.id)
		}
	}
}

// send puts what a device holds of another one's records in the mail for all in reach.
func (w *world) send(i int, id string) {
	for j, o := range w.devices {
		if i != j && w.reach(i, j) {
			at := w.now + time.Duration(w.r.Int64N(int64(recordDelay-time.Second)))
			w.mail = append(w.mail, letter{at, o.id, w.devices[i].id, w.devices[i].dir[id]})
			w.mail[len(w.mail)-1].from = id
		}
	}
}

// step lets a second pass.
func (w *world) step() {
	w.now += time.Second
	for i := range w.devices {
		for j := range i {
			if p := pairOf(i, j); w.reach(i, j) {
				delete(w.lost, p)
			} else if _, lost := w.lost[p]; !lost {
				w.lost[p] = w.now
			}
		}
	}
	w.mail = slices.DeleteFunc(w.mail, func(l letter) bool {
		if l.at > w.now {
			return false
		}
		to := w.devices[slices.IndexFunc(w.devices, func(d *simDevice) bool { return d.id == l.to })]
		if to.awake && to.running && l.rec.version > to.dir[l.from].version {
			to.dir[l.from] = l.rec
		}
		return true
	})
	for _, i := range w.r.Perm(len(w.devices)) {
		d := w.devices[i]
		if d.awake || !d.blind {
			d.clock += time.Second
		}
		if !d.awake || !d.running {
			continue
		}
		w.tick(i, false)
		for id := range d.dir {
			w.send(i, id)
		}
	}
}

// groups are the devices that are together, by the truth.
func (w *world) groups() [][]int {
	seen := map[int]bool{}
	var out [][]int
	for i, d := range w.devices {
		if seen[i] || !d.awake || !d.running {
			continue
		}
		g := []int{i}
		seen[i] = true
		for k := 0; k < len(g); k++ {
			for j := range w.devices {
				if !seen[j] && w.near(g[k], j) {
					seen[j] = true
					g = append(g, j)
				}
			}
		}
		slices.Sort(g)
		out = append(out, g)
	}
	return out
}

func (w *world) names(g []int) string {
	var s strings.Builder
	for _, i := range g {
		s.WriteString(w.devices[i].id)
	}
	return s.String()
}

// check returns what is wrong now.
func (w *world) check() error {
	none := map[string]time.Duration{}
	for _, g := range w.groups() {
		acting := 0
		for _, i := range g {
			if w.devices[i].view.Acting {
				acting++
			}
		}
		if name := w.names(g); acting == 0 {
			none[name] = w.now
			if since, ok := w.none[name]; ok {
				none[name] = since
			}
			if w.now-none[name] > noneWithin {
				return fmt.Errorf("nobody of %s has acted since %v", name, none[name])
			}
		}
		for _, i := range g {
			for _, j := range g {
				if p := pairOf(i, j); i < j && w.near(i, j) {
					if _, ok := w.together[p]; !ok {
						w.together[p] = w.now
					}
				} else if i < j {
					delete(w.together, p)
				}
			}
		}
	}
	w.none = none
	for i, a := range w.devices {
		for j, b := range w.devices[:i] {
			p := pairOf(i, j)
			if !w.near(i, j) {
				delete(w.together, p)
			}
			since, ok := w.together[p]
			if !ok || !a.view.Acting || !b.view.Acting || w.now-since < oneWithin {
				delete(w.both, p)
				continue
			}
			if _, ok := w.both[p]; !ok {
				w.both[p] = w.now
			}
			// A moment at a change: until the record of the higher claim has arrived.
			if w.now-w.both[p] > recordDelay+2*time.Second {
				return fmt.Errorf("%s and %s are together since %v, and both act since %v", a.id, b.id, since, w.both[p])
			}
		}
	}
	return nil
}

// agree returns what isn't as it must be after a long quiet.
func (w *world) agree() error {
	for _, g := range w.groups() {
		first := w.devices[g[0]].view.Here
		acting := ""
		for _, i := range g {
			d := w.devices[i]
			if told([]Site{d.view.Here}) != told([]Site{first}) || strings.Join(first.Members, "") != w.names(g) {
				return fmt.Errorf("%s are together, but %s says %s and %s says %s", w.names(g), w.devices[g[0]].id, told([]Site{first}), d.id, told([]Site{d.view.Here}))
			}
			if d.view.Acting {
				acting += d.id
			}
			best := w.devices[slices.IndexFunc(w.devices, func(d *simDevice) bool { return d.id == first.Postmaster })]
			if compareClass(Record{Power: d.facts.Power, Link: d.facts.Link}, Record{Power: best.facts.Power, Link: best.facts.Link}) < 0 {
				return fmt.Errorf("%s is better than the postmaster %s", d.id, best.id)
			}
		}
		if acting != first.Postmaster {
			return fmt.Errorf("of %s, %q act; the postmaster is %q", w.names(g), acting, first.Postmaster)
		}
	}
	return nil
}

func (w *world) state() map[string]string {
	out := map[string]string{}
	for _, d := range w.devices {
		if d.awake && d.running {
			out[d.id] = fmt.Sprint(told(d.view.Sites), d.view.Acting)
		}
	}
	return out
}

// play lets a fleet live and returns what went wrong. Events come in bursts or far apart; then there is quiet.
func (w *world) play() error {
	for range 3 {
		pause := 1 + w.r.IntN(60)
		for range 200 + w.r.IntN(200) {
			if w.r.IntN(pause) == 0 {
				w.disturb()
			}
			w.step()
			if err := w.check(); err != nil {
				return err
			}
		}
		for range int(calm / time.Second) {
			w.step()
			if err := w.check(); err != nil {
				return err
			}
		}
		if err := w.agree(); err != nil {
			return err
		}
		state, changes := w.state(), w.changes
		for range 300 {
			w.step()
			if now := w.state(); !maps.Equal(now, state) || w.changes != changes {
				return fmt.Errorf("in the quiet, %v became %v", state, now)
			}
		}
	}
	// An event takes a device out of one site, which may need another postmaster, and puts it into another one, where it, or who is there,
	// may become one, and a better one later.
	if most := 3*w.events + len(w.devices); w.changes > most {
		return fmt.Errorf("%d changes of postmasters after %d events", w.changes, w.events)
	}
	return nil
}

func TestSimulation(t *testing.T) {
	changes, events := 0, 0
	for seed := range uint64(*lives) {
		w := newWorld(seed)
		if err := w.play(); err != nil {
			t.Fatalf("seed %d, at %v: %v\n%s", seed, w.now, err, strings.Join(w.log[max(0, len(w.log)-12):], "\n"))
		}
		changes, events = changes+w.changes, events+w.events
	}
	t.Logf("%d lives: %d changes of postmasters after %d events", *lives, changes, events)
	// Far fewer than the bound of a single life: most events must change nothing.
	if changes < *lives || changes > events/4 {
		t.Error("too few or too many changes")
	}
}
