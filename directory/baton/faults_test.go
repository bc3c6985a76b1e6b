package baton

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A trial is one run of a scenario in which nothing is left to chance: every
// device does what it can in a fixed order, and at most one thing goes wrong.
type trial struct {
	*world
	steps   []step
	acts    int // done so far
	sent    int // letters so far
	actions []string
	letters []string
	waits   int      // how often time passed since the last step
	held    []letter // late letters
	swap    *letter  // to be delivered after the next one to the same device
	bad     mishap
}

// A step is what a person, or the world, does: as soon as it may, or when
// nothing else moves.
type step struct {
	when func(w *world) bool // nil: when nothing moves
	do   func(w *world)
}

// A mishap is the one thing that goes wrong. Zero: nothing.
type mishap struct {
	what   string // lost, doubled, swapped, late: of the letter; engine, host: of the device, before the action
	nth    int    // letter or action, from 1
	device int
	later  bool // the device comes back only when nothing moves any more
}

func (t *trial) run() string {
	t.healing = true
	for range 4000 {
		if t.err != nil {
			return ""
		}
		if len(t.steps) > 0 && t.steps[0].when != nil && t.steps[0].when(t.world) {
			t.next()
			continue
		}
		if t.turn() {
			t.check()
			continue
		}
		if t.quiet() {
			continue
		}
		if len(t.steps) == 0 {
			return t.end()
		}
		t.next()
	}
	t.fail("it never comes to rest")
	return ""
}

func (t *trial) next() {
	s := t.steps[0]
	t.steps = t.steps[1:]
	t.waits = 0
	s.do(t.world)
}

// quiet is when nothing moves: late things come, time passes.
func (t *trial) quiet() bool {
	if len(t.held) > 0 {
		t.pass(3 * time.Minute)
		t.net = append(t.net, t.held...)
		t.held = nil
		return true
	}
	for _, d := range t.devices {
		if d.m == nil && t.bad.later && t.bad.device == slices.Index(t.devices, d) {
			t.pass(3 * time.Minute)
			t.restart(d)
			t.bad.later = false
			return true
		}
	}
	// Who waits for a device that is away asks it again for ever.
	for ; t.waits < 6; t.waits++ {
		t.pass(45 * time.Second)
		if slices.ContainsFunc(t.devices, func(d *device) bool { return d.m != nil && len(d.queue)+len(d.local) > 0 }) {
			t.waits++
			return true
		}
	}
	return false
}

func (t *trial) pass(d time.Duration) {
	t.now = t.now.Add(d)
	for i, d := range t.devices {
		for _, p := range t.devices[:i] {
			if d.m != nil && p.m != nil && t.linked(d.id, p.id) {
				t.meet(d, p)
			}
		}
		if d.m != nil && len(d.queue) == 0 {
			t.step(d, Event{Kind: EvTick, Now: t.now})
			for _, ev := range t.news(d) {
				if ev.Kind == EvChosen && ev.Term > d.m.Term() && ev.Term > d.m.d.Chosen && d.m.State() != Replica {
					d.local = append(d.local, ev)
				}
			}
		}
	}
}

// turn lets the first device that can do something do it.
func (t *trial) turn() bool {
	for i, d := range t.devices {
		if d.m == nil || len(d.queue) == 0 {
			continue
		}
		t.acts++
		if t.bad.nth == t.acts && (t.bad.what == "engine" || t.bad.what == "host") {
			t.crash(t.devices[t.bad.device], t.bad.what == "host")
			if !t.bad.later {
				t.restart(t.devices[t.bad.device])
			}
			if t.bad.device == i {
				return true
			}
		}
		before := len(t.net)
		t.actions = append(t.actions, d.id+" "+string(d.queue[0].Kind))
		t.act(d)
		if len(t.net) > before {
			t.post()
		}
		return true
	}
	for _, d := range t.devices {
		switch {
		case d.m == nil:
			continue
		case len(d.local) > 0:
			ev := d.local[0]
			d.local = d.local[1:]
			t.step(d, ev)
		case len(d.tasks) > 0:
			t.work(d)
		case d.aside:
			d.aside = false
			d.restore = append(d.restore, d.content)
			d.local = append(d.local, Event{Kind: EvSetAside})
		default:
			continue
		}
		return true
	}
	if len(t.net) == 0 && t.swap == nil {
		return false
	}
	t.mail()
	return true
}

// post counts the letter that was just sent, and does it harm.
func (t *trial) post() {
	t.sent++
	l := t.net[len(t.net)-1]
	t.letters = append(t.letters, l.from+"→"+l.to+" "+string(l.action.Kind))
	if t.bad.nth != t.sent {
		return
	}
	switch t.bad.what {
	case "lost":
		t.net = t.net[:len(t.net)-1]
	case "doubled":
		t.held = append(t.held, l)
	case "late":
		t.net = t.net[:len(t.net)-1]
		t.held = append(t.held, l)
	case "swapped":
		t.net = t.net[:len(t.net)-1]
		t.swap = &l
	}
}

func (t *trial) mail() {
	var l letter
	if len(t.net) > 0 {
		l, t.net = t.net[0], t.net[1:]
	} else {
		l, t.swap = *t.swap, nil
	}
	if t.dev(l.to).m != nil {
		t.deliver(l)
	}
	if t.swap != nil && t.swap.to == l.to {
		t.net = append([]letter{*t.swap}, t.net...)
		t.swap = nil
	}
}

// end mends everything and says what became of it.
func (t *trial) end() string {
	clear(t.cut)
	for _, d := range t.devices {
		if d.m == nil {
			t.restart(d)
		}
	}
	for _, d := range t.devices {
		for _, p := range t.devices {
			if p != d {
				d.local = append(d.local, Event{Kind: EvLinkUp, Peer: p.id})
			}
		}
	}
	t.waits = 0
	t.drain()
	said := t.sides()
	// Whatever is left to choose, the person can choose.
	for n := 0; t.err == nil && len(t.devices[0].heads) > 1 && n < 4; n++ {
		if !t.choose() {
			break
		}
		t.drain()
	}
	if t.err == nil {
		t.rest()
	}
	return said
}

func (t *trial) drain() {
	for range 2000 {
		if t.err != nil {
			return
		}
		if !t.turn() && !t.quiet() {
			return
		}
		t.check()
	}
	t.fail("it never comes to rest at the end")
}

func (t *trial) choose() bool {
	for _, d := range t.devices {
		for i, h := range d.heads {
			if t.holds(h) && slices.ContainsFunc(d.heads, func(s *transfer) bool { return s.to == d.id }) {
				t.keep(d, i)
				t.waits = 0
				return true
			}
		}
	}
	return false
}

// sides says who holds what.
func (t *trial) sides() string {
	var words []string
	for i, h := range t.devices[0].heads {
		word := h.to
		if i > 0 {
			word = "or " + word
		}
		words = append(words, word+" "+h.kind)
	}
	for _, d := range t.devices {
		word := fmt.Sprintf("%s %s", d.id, d.m.State())
		if d.hyper.kind != hyperNone {
			word += " " + string(d.hyper.kind)
		}
		if len(d.restore) > 0 {
			word += " restorable"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// TestFaults plays every scenario with every single fault: each letter lost,
// doubled, overtaken and late beyond all time limits, each device's engine and
// host dying before every action and coming back at once or late. The digests in
// testdata/faults say for each what became of it.
func TestFaults(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			file := filepath.Join("testdata", "faults", s.name+".txt")
			got := digest(t, s)
			if *flagUpdate {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); !bytes.Equal(got, want) {
				t.Fatalf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func digest(t *testing.T, s scenario) []byte {
	var outcomes []string
	play := func(bad mishap) (*trial, string) {
		tr := s.begin()
		tr.bad = bad
		said := tr.run()
		if tr.err != nil {
			for _, l := range tr.log {
				t.Log(l)
			}
			t.Fatalf("%+v: %v", bad, tr.err)
		}
		if i := slices.Index(outcomes, said); i >= 0 {
			return tr, name(i)
		}
		outcomes = append(outcomes, said)
		return tr, name(len(outcomes) - 1)
	}
	clean, _ := play(mishap{})
	var lines []string
	for i, l := range clean.letters {
		line := fmt.Sprintf("letter %d %s:", i+1, l)
		for _, what := range []string{"lost", "doubled", "swapped", "late"} {
			_, said := play(mishap{what: what, nth: i + 1})
			line += " " + what + " " + said
		}
		lines = append(lines, line)
	}
	for i, a := range clean.actions {
		line := fmt.Sprintf("action %d %s:", i+1, a)
		for n, d := range clean.devices {
			for _, what := range []string{"engine", "host"} {
				_, soon := play(mishap{what: what, nth: i + 1, device: n})
				_, later := play(mishap{what: what, nth: i + 1, device: n, later: true})
				line += fmt.Sprintf(" %s %s %s%s", d.id, what, soon, later)
			}
		}
		lines = append(lines, line)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s\n", s.about)
	for i, o := range outcomes {
		fmt.Fprintf(&out, "%s = %s\n", name(i), o)
	}
	for _, l := range lines {
		fmt.Fprintln(&out, l)
	}
	return out.Bytes()
}

func name(i int) string {
	if i < 26 {
		return string(rune('A' + i))
	}
	return string(rune('A'+i/26-1)) + string(rune('a'+i%26))
}
