package fleetsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/site"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// world is a fleet in one process: one goroutine drives everything, and what it does follows from the seed alone.
type world struct {
	seed     uint64
	rng      *rand.Rand
	devices  []*device
	net      network
	truth    *truth
	linear   *linear
	saboteur saboteur
	acts     acts
	healing  bool
	names    int
	rounds   int
	calm     int // the higher, the rarer bad luck is
	verbose  bool
	stepwise bool // switches go on by one turn at a time
	fills    bool // disks are filled up
	behind   bool // copies are slow, and hand-offs don't wait for them
	log      []string
	err      error

	sites   int  // 0: one
	two     bool // flushes wait for a second copy
	began   time.Time
	crossed map[crossing]int // blocks that were pushed into other sites

	queueBytes int64
	saveEvery  time.Duration
	tb         testing.TB
}

// acts counts what happened, so that a test can tell that something did.
type acts struct {
	writes, flushes, handoffs, teleports, crashes, steps int
	takeovers, kept, judged, choices, points, compared   int
	tellings, previews, certain, suspended, resumed      int
	lacking, hydrated, whole                             int // hand-offs onto copies that weren't whole, blocks, disks
	pushes, pushed, rollbacks, twice, repeated           int
	slowed, tooBusy                                      int // reports of guests that were slowed or allowed more, and switches given up for that
	grown, followed                                      int // disks of owners, of others
	rotten, mended, elsewhere                            int // drives that went bad, of them those that were repaired; blocks that a push needn't bring
}

func (a *acts) add(b acts) {
	a.writes += b.writes
	a.grown += b.grown
	a.followed += b.followed
	a.flushes += b.flushes
	a.handoffs += b.handoffs
	a.teleports += b.teleports
	a.crashes += b.crashes
	a.steps += b.steps
	a.takeovers += b.takeovers
	a.kept += b.kept
	a.judged += b.judged
	a.choices += b.choices
	a.points += b.points
	a.compared += b.compared
	a.tellings += b.tellings
	a.previews += b.previews
	a.certain += b.certain
	a.suspended += b.suspended
	a.resumed += b.resumed
	a.slowed += b.slowed
	a.tooBusy += b.tooBusy
	a.lacking += b.lacking
	a.hydrated += b.hydrated
	a.whole += b.whole
	a.pushes += b.pushes
	a.pushed += b.pushed
	a.rollbacks += b.rollbacks
	a.twice += b.twice
	a.rotten += b.rotten
	a.mended += b.mended
	a.elsewhere += b.elsewhere
	a.repeated += b.repeated
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.note("FAILED: %v", w.err)
	}
}

func (w *world) note(format string, args ...any) {
	if w.verbose {
		w.log = append(w.log, fmt.Sprintf(format, args...))
	}
}

// chance is true once in n, the rarer the calmer it is; never when things are to heal.
func (w *world) chance(n int) bool { return !w.healing && w.rng.IntN(n*w.calm) == 0 }

func (w *world) dev(id string) *device {
	return w.devices[slices.IndexFunc(w.devices, func(d *device) bool { return d.id == id })]
}

func (w *world) others(d *device) []*device {
	var list []*device
	for _, p := range w.devices {
		if p != d {
			list = append(list, p)
		}
	}
	return list
}

func (w *world) pick(list []*device) *device { return list[w.rng.IntN(len(list))] }

// barrenWorld has no devices yet.
func barrenWorld(seed uint64, sab saboteur, verbose bool) *world {
	w := &world{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0xf1ee7)), net: network{cut: map[[2]string]bool{}},
		calm: []int{1, 3, 10}[seed%3], saboteur: sab, verbose: verbose, linear: newLinear(),
		sites: []int{0, 0, 2, 3, 0, 0, 0}[seed%7],
		two:   seed%9 == 4,
		began: time.Now(), crossed: map[crossing]int{},
		queueBytes: []int64{64 << 20, 48 << 10}[seed/3%2], saveEvery: []time.Duration{30 * time.Second, -1}[seed/6%2],
	}
	w.truth = newTruth(w)
	return w
}

// newWorld makes a fleet of 2 to 6 devices.
func newWorld(seed uint64, sab saboteur, verbose bool) *world {
	w := barrenWorld(seed, sab, verbose)
	w.populate(2 + []int{0, 1, 0, 1, 2, 0, 1, 3, 1, 4}[seed%10])
	if seed%5 > 0 { // else even the first copy is made under bad luck
		w.settle()
		if w.sites > 1 {
			w.pass(20 * time.Second)
			w.settle()
		}
	}
	w.start(w.devices[0])
	w.healing = false
	return w
}

// populate makes a fleet of n devices that know each other, in good luck; the first creates the VM.
func (w *world) populate(n int) {
	for i := range n {
		d := &device{w: w, id: string(rune('a' + i)), mem: vfs.NewMem(), sees: map[string]bool{}, powered: true}
		d.lacks = &slot{d: d}
		d.facts = site.Facts{
			Power: []site.Power{site.Mains, site.Battery}[(w.seed/11+uint64(i))%2], Link: []site.Link{site.Wired, site.Wireless}[(w.seed/5+uint64(i))%2], Up: w.began,
		}
		d.records = &records{d: d, durable: map[string][]byte{}}
		w.devices = append(w.devices, d)
	}
	w.healing = true // nothing goes wrong yet
	for _, d := range w.devices {
		d.boot()
		for _, p := range w.others(d) {
			w.must(d, d.e.dir.AddMember(directory.Member{ID: p.id, Name: p.id}))
		}
	}
	w.create(w.devices[0])
	synctest.Wait()
	for _, d := range w.devices {
		for _, p := range w.others(d) {
			w.notice(d, p)
		}
	}
}

func (w *world) must(d *device, err error) {
	if err != nil {
		w.fail("%s: set up: %v", d.id, err)
	}
}

// create makes the VM on d.
func (w *world) create(d *device) {
	e := d.e
	var err error
	e.disk, err = vmdisk.Create("", diskID, diskSize, d.diskOptions())
	w.must(d, err)
	t, err := e.dir.NewCreated(vmID)
	w.must(d, err)
	e.machine, err = baton.NewOwner(baton.Config{}, 1)
	w.must(d, err)
	w.must(d, e.dir.AppendTransfer(t, directory.BatonEntry(vmID, e.machine.Encode())))
	w.must(d, e.dir.PutVM(directory.VM{ID: vmID, Name: "Work", Disk: diskID.String(), DiskBytes: diskSize}))
	w.must(d, e.disk.Activate(1))
	d.owned, d.touched = true, true
	w.activated(d)
}

// look checks what a device's disk is, if anything can have changed, and notes what the owner's is.
func (w *world) look(d *device) {
	if d.e == nil || d.e.disk == nil || d.burnt() || w.err != nil {
		return
	}
	disk := d.e.disk
	if n := d.mem.Calls(); n != d.calls {
		d.calls, d.touched = n, true
	}
	if !d.touched {
		return
	}
	st := disk.ReplicaState()
	if !st.Complete {
		d.touched = false
		return
	}
	pos := st.Position
	if info := disk.Info(); info.Hydrating {
		pos = info.Position // what it reads as
	}
	if d.owned {
		info := disk.Info()
		if info.Active {
			w.activated(d)
		}
		if info.Unflushed || info.Err != nil {
			return
		}
		if w.truth.contents[info.Position] == nil && (info.Position.Term == info.Term) {
			w.note("%s is at %s", d.id, info.Position)
		}
		d.durable = d.now
		clear(d.maybe[:])
		w.truth.at(d, info.Position, &d.now)
	}
	if !d.owned && pos != d.last {
		w.moved(d, d.last, pos)
	}
	d.last, d.touched = pos, false
	c, err := d.read()
	if err != nil {
		w.trouble(d, "read", err)
		return
	}
	want := w.truth.contents[pos]
	switch {
	case want == nil:
		w.fail("%s is at %s, which never was", d.id, pos)
	case *c != *want:
		w.fail("%s isn't what the disk was at %s: %s", d.id, pos, c.differ(want))
	}
}

// moved checks that nothing is overwritten which the new history lacks.
func (w *world) moved(d *device, from, to vmdisk.Position) {
	if w.truth.within(from, to) {
		return
	}
	if where, ok := w.kept(from, d); ok {
		w.note("%s was at %s, which is in %s", d.id, from, where)
		return
	}
	w.fail("%s was at %s and is overwritten by %s, whose history lacks that", d.id, from, to)
}

// check holds all devices against the promises.
func (w *world) check() {
	var run []*device
	for _, d := range w.devices {
		w.look(d)
		if d.guest != nil && d.guest.kind == running {
			run = append(run, d)
		}
	}
	for i, a := range run {
		for _, b := range run[:i] {
			if !w.truth.forced(a.guest.term, b.guest.term) {
				w.fail("two guests run: %s under term %d, %s under term %d", a.id, a.guest.term, b.id, b.guest.term)
			}
		}
	}
	for i, d := range w.devices {
		if d.e == nil {
			continue
		}
		w.contact(d)
		if !d.e.owner() {
			continue
		}
		for _, p := range w.devices[:i] {
			if p.e != nil && p.e.owner() && !w.truth.forced(d.e.machine.Term(), p.e.machine.Term()) {
				w.fail("%s owns term %d and %s owns term %d", d.id, d.e.machine.Term(), p.id, p.e.machine.Term())
			}
		}
	}
}

// contact checks that no guest goes on where it is known that another device is the owner.
func (w *world) contact(d *device) {
	e := d.e
	if d.guest == nil || d.guest.kind != running || e.busy() || len(e.events) > 0 || e.looks() || !e.owner() {
		return
	}
	if _, owner, ok := e.dir.Owner(vmID); ok && owner != d.id {
		w.fail("%s's guest runs under term %d, and its directory says that %s is the owner", d.id, d.guest.term, owner)
	}
}

// after ends an event: goroutines settle, fuses that have burnt end their engines, and everything is checked.
func (w *world) after() {
	synctest.Wait()
	for _, d := range w.devices {
		w.answered(d)
		if d.burnt() {
			w.crash(d, d.fuse.host)
		}
	}
	w.check()
	w.acts.steps++
}

// close ends all engines.
func (w *world) close() {
	for _, d := range w.devices {
		d.stop(vfs.LoseNothing)
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	for ; w.sites > 1 && d > time.Second; d -= time.Second {
		time.Sleep(time.Second)
		synctest.Wait()
		w.second()
	}
	time.Sleep(d)
	synctest.Wait()
	if w.sites > 1 {
		w.second()
	}
}

func isForced(k directory.Kind) bool {
	return k != directory.KindCreated && k != directory.KindSwitch && k != directory.KindReturned
}
