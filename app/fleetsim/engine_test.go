package fleetsim

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"syscall"
	"testing/synctest"
	"time"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/site"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// vmID and diskID are of the one VM that a fleet begins with.
const vmID = "00000000000000000000000000000001"

var diskID = vmdisk.ID{1}

var layerNames = regexp.MustCompile("layer-[0-9a-f]+")

var silent = slog.New(slog.DiscardHandler)

// device is one PC: what survives its engine, and the engine.
type device struct {
	w       *world
	id      string
	mem     *vfs.Mem // the disk's files
	records *records
	fuse    fuse
	sees    map[string]bool // which connections its engine believes in
	powered bool
	// What the sites and the schedulers go by: the first two survive the engine.
	says          site.Record
	mirrored      bool // its copy came by the owner's mirror
	paused, asked bool // by the person
	facts         site.Facts
	guest         *guest
	e             *engine // nil while it doesn't run

	// What the disk must be: now is what was written, durable what a power cut leaves at least, of each sector that or one of maybe.
	owned   bool // it was written here since it was last a replica
	now     content
	durable content
	maybe   [sectors][]uint32
	points  []point
	lacks   *slot // what its giver told it
	// goesBack says that the person has rolled its disk back, which a crash may leave done or not.
	goesBack bool
	sure     vmdisk.Position // as which the owner has told that its disk stays
	last     vmdisk.Position // of a replica, when it was looked at last
	touched  bool            // something may have changed since it was looked at
	calls    int             // of the disk's files, then
	full     bool            // nothing more can be stored; only in lives that fill disks
	rotten   *rot            // what of its drive is bad; nil almost always
	attic    *attic          // nil: nothing was copied there
}

// engine is what runs on a device that is up. It does what package app does, without its goroutines.
type engine struct {
	d       *device
	dir     *directory.Directory
	disk    *vmdisk.Store // nil: no replica yet
	machine *baton.Machine
	queue   []baton.Action
	follow  []baton.Event // of this engine's own actions, before all others
	events  []baton.Event
	changed <-chan struct{}

	look     bool // the machine is to be told what the history says
	news     bool // the others are to be told of a change
	due      bool // the VM's record may have to be written
	aside    *aside
	outgoing *giving
	incoming *taking
	feeds    map[string]*mirror
	pushes   map[string]*mirror
	post     *postOffice
	gate     *second.Gate
	ended    chan struct{}
	reported vmdisk.Position // where the owner was told that this replica is
	// reportedNone says that it was told that there is none.
	reportedNone bool
	applying     *mirror
	sealed       bool
	stays        *baton.Action // to go on here, which there was no room for
	word         *custody.Word
}

func (d *device) directoryOptions() directory.Options {
	return directory.Options{
		Self: d.id, Store: d.records, Log: silent,
		Sign: func(msg []byte) ([]byte, error) { return signature(d.id, msg), nil },
		Verify: func(id string, msg, sig []byte) error {
			if string(signature(id, msg)) != string(sig) {
				return errors.New("another signature")
			}
			return nil
		},
	}
}

// signature stands for one: nobody forges anything here.
func signature(id string, msg []byte) []byte {
	sum := blake3.Sum256(append([]byte(id+"\x00"), msg...))
	return sum[:16]
}

func (d *device) diskOptions() vmdisk.Options {
	return vmdisk.Options{FS: d.mem, Reserve: 0, QueueBytes: d.w.queueBytes, BarrierEvery: time.Second, SaveEvery: d.w.saveEvery}
}

// boot starts the engine.
func (d *device) boot() {
	w := d.w
	w.note("%s's engine starts", d.id)
	d.records = d.records.again()
	dir, err := directory.Open(d.directoryOptions())
	if err != nil {
		w.fail("%s: open the directory: %v", d.id, err)
		return
	}
	e := &engine{d: d, dir: dir, feeds: map[string]*mirror{}, pushes: map[string]*mirror{}, post: newPostOffice(d), ended: make(chan struct{})}
	e.gate = newGate(e)
	e.changed, _ = dir.Changed()
	names, err := d.mem.List()
	if err == nil && len(names) > 0 {
		e.disk, err = vmdisk.Open("", d.diskOptions())
		if errors.Is(err, vmdisk.ErrNoDisk) && !d.owned && d.last == (vmdisk.Position{}) {
			// It lost power while the replica was being made.
			d.mem, err = vfs.NewMem(), nil
		}
	}
	if err != nil {
		w.fail("%s: open the disk: %v", d.id, err)
		return
	}
	d.e, d.touched, e.look, e.due = e, true, true, true
	saved, err := dir.LoadBaton(vmID)
	if errors.Is(err, directory.ErrNotFound) {
		saved, err = baton.NewReplica(baton.Config{}).Encode(), nil
	}
	if err == nil {
		e.machine, err = baton.Decode(baton.Config{}, saved)
	}
	if err != nil {
		w.fail("%s: load the machine: %v", d.id, err)
		return
	}
	facts := baton.Facts{HypervisorAlive: d.guest != nil}
	if e.disk != nil {
		facts.DiskActive = e.disk.Info().Owned
	}
	if ev, news := e.custody().News(e.machine); news && !ev.Mine && (ev.Kind == baton.EvSuperseded || ev.Kind == baton.EvChosen) {
		facts.Superseded, facts.Owner = ev.Term, ev.Peer
	}
	w.afterCrash(d)
	w.stays(d)
	e.step(baton.Event{Kind: baton.EvRestart, Facts: facts})
}

func (e *engine) custody() custody.Custody {
	return custody.Custody{VM: vmID, Self: e.d.id, Dir: e.dir, Disk: e.disk, Log: silent, Lacking: e.d.lacks}
}

func (e *engine) owner() bool { return e.machine.Owner() }

// step feeds the machine one event.
func (e *engine) step(ev baton.Event) {
	w, before := e.d.w, e.machine.State()
	acts, err := e.machine.Step(ev)
	if err != nil {
		w.note("%s %s: %v", e.d.id, before, err)
		// A person may ask for what can't be; a peer, or a race, can never make the engine look wrong.
		if ev.Kind != baton.EvWant && ev.Kind != baton.EvCancel && ev.Kind != baton.EvTakeOver {
			w.fail("%s: %v", e.d.id, err)
		}
		return
	}
	if w.verbose && (ev.Kind != baton.EvTick || len(acts) > 0) {
		w.note("%s %s: %s of %s, term %d, attempt %s → %s %v", e.d.id, before, ev.Kind, ev.Peer, ev.Term, ev.Attempt, e.machine.State(), kinds(acts))
	}
	e.queue = append(e.queue, acts...)
	e.look = e.look || e.machine.State() != before
	w.saboteur.stepped(e, ev)
}

func kinds(acts []baton.Action) []baton.ActionKind {
	var k []baton.ActionKind
	for _, a := range acts {
		k = append(k, a.Kind)
	}
	return k
}

// run does the next thing of the loop: an action, then what it led to, then what was posted. false: nothing to do.
func (e *engine) run() bool {
	switch {
	case len(e.queue) > 0:
		a := e.queue[0]
		e.queue = e.queue[1:]
		e.perform(a)
	case len(e.follow) > 0:
		ev := e.follow[0]
		e.follow = e.follow[1:]
		e.step(ev)
	case e.looks() && (len(e.events) == 0 || e.d.w.rng.IntN(2) == 0) && e.followHistory():
	case len(e.events) > 0:
		ev := e.events[0]
		e.events = e.events[1:]
		e.step(ev)
	default:
		return false
	}
	return true
}

// looks says that the history is to be looked at.
func (e *engine) looks() bool {
	select {
	case <-e.changed:
		e.look, e.news = true, true
	default:
	}
	return e.look
}

// busy says that the loop is in the middle of an event.
func (e *engine) busy() bool { return len(e.queue) > 0 || len(e.follow) > 0 }

// perform carries out one action, as package app does.
func (e *engine) perform(a baton.Action) {
	d, w := e.d, e.d.w
	if _, ok := baton.Delivered(d.id, a); ok {
		e.send(a)
		return
	}
	w.note("%s does %s, term %d", d.id, a.Kind, a.Term)
	d.touched = true
	if e.disk != nil {
		before := e.disk.Info()
		defer func() { d.wentBack(before) }()
	}
	switch a.Kind {
	case baton.ActSave, baton.ActRecordAbort:
		e.saveBaton(a.State)
		if a.Kind == baton.ActRecordAbort {
			e.endIncoming()
		}
	case baton.ActStartIncoming:
		e.take(a)
	case baton.ActStartOutgoing:
		e.give(a)
	case baton.ActContinueOutgoing:
		if e.outgoing != nil {
			e.outgoing.giver.Proceed()
		}
	case baton.ActPersistGiven:
		kind := directory.KindSwitch
		if a.Returned {
			kind = directory.KindReturned
		}
		e.persisted(a.Term, w.saboteur.given(e, custody.Giving{
			Term: a.Term, To: a.Peer, Attempt: a.Attempt, Position: directory.Position(a.Position), Kind: kind, State: a.State,
		}))
	case baton.ActPersistOwned:
		e.persisted(a.Term, e.custody().Owned(a.Term, a.State))
	case baton.ActActivateDisk:
		e.seal()
		w.saboteur.activating(e, a.Term)
		word := e.word
		e.word = nil
		if err := e.custody().Activate(a.Term, word); err != nil {
			w.trouble(d, "activate", err)
		}
		e.sealed, e.due = false, true
		w.activated(d)
	case baton.ActFenceDisk:
		if err := e.custody().Fence(a.Term); err != nil {
			w.trouble(d, "fence", err)
		}
	case baton.ActRunGuest:
		e.runGuest()
	case baton.ActResume:
		e.resume(a)
	case baton.ActKillHypervisor:
		e.kill()
	case baton.ActBecomeReplica:
		e.saveBaton(a.State)
		for _, f := range e.feeds {
			f.closeOwner()
		}
	case baton.ActReportStopped:
	default:
		if e.performForced(a) {
			return
		}
		w.fail("%s: unknown action %s", d.id, a.Kind)
	}
}

func (e *engine) persisted(term uint64, err error) {
	if err == nil {
		e.follow = append(e.follow, baton.Event{Kind: baton.EvPersisted, Term: term})
		return
	}
	e.d.w.note("…which fails: %v", err)
	e.follow = append(e.follow, baton.Event{Kind: baton.EvPersistFailed, Term: term, NotWritten: errors.Is(err, custody.ErrNotWritten)})
}

func (e *engine) saveBaton(state []byte) {
	if err := e.dir.SaveBaton(vmID, state); err != nil {
		e.d.w.note("%s can't save the machine: %v", e.d.id, err)
	}
}

// activated checks what an active disk must be.
func (w *world) activated(d *device) {
	info := d.e.disk.Info()
	if !info.Active {
		return
	}
	term := info.Term
	t, ok := w.truth.transfers[term]
	switch by := w.truth.active[term]; {
	case !ok || t.To != d.id:
		w.fail("%s has an active disk under term %d, which is %q's", d.id, term, t.To)
	case by == "":
		w.truth.active[term] = d.id
		w.took(d, t, info.Position)
	case by != d.id:
		w.fail("%s has an active disk under term %d, as %s had", d.id, term, by)
	}
	if !info.Fenced && term <= w.truth.gave[d.id] {
		w.fail("%s has an active disk under term %d, and has given term %d away", d.id, term, w.truth.gave[d.id])
	}
}

// took checks that a new owner begins with what the owner before ended with.
func (w *world) took(d *device, t directory.SignedTransfer, pos vmdisk.Position) {
	d.sure, d.goesBack = vmdisk.Position{}, false
	if t.Kind == directory.KindCreated {
		d.owned = true
		return
	}
	if t.Kind == directory.KindResolved || t.Kind == directory.KindKept {
		w.wentOn(d, t, pos)
		return
	}
	if want := vmdisk.Position(t.Position); pos != want {
		w.fail("%s begins term %d at %s, the transfer says %s", d.id, t.Term, pos, want)
		return
	}
	c, ok := w.truth.contents[pos]
	if !ok {
		w.fail("%s begins term %d at %s, which never was", d.id, t.Term, pos)
		return
	}
	d.owned, d.now, d.durable = true, *c, *c
	clear(d.maybe[:])
	w.acts.handoffs++
	if d.e.disk.Info().Hydrating {
		w.acts.lacking++
	}
}

// wentOn checks that the side which goes on after a choice is the one that was chosen.
func (w *world) wentOn(d *device, t directory.SignedTransfer, pos vmdisk.Position) {
	if !w.truth.within(pos, vmdisk.Position{Term: t.Term, Barrier: math.MaxUint64}) {
		w.fail("%s goes on under term %d at %s, which isn't what was chosen", d.id, t.Term, pos)
		return
	}
	if d.owned && !w.truth.neverBegun(d, t) {
		return // with all that was written here
	}
	c, ok := w.truth.contents[pos]
	if !ok {
		w.fail("%s goes on under term %d at %s, which never was", d.id, t.Term, pos)
		return
	}
	d.owned, d.now, d.durable = true, *c, *c
	clear(d.maybe[:])
}

// runGuest lets the loaded guest go on.
func (e *engine) runGuest() {
	d, w := e.d, e.d.w
	switch {
	case d.guest == nil:
		e.follow = append(e.follow, baton.Event{Kind: baton.EvGuestFailed, NeverRan: true})
		return
	case e.disk == nil || !e.disk.Info().Active:
		e.follow = append(e.follow, baton.Event{Kind: baton.EvGuestFailed, NeverRan: true})
		return
	case w.chance(25):
		w.note("%s's hypervisor doesn't go on", d.id)
		d.guest.exits()
		d.guest = nil
		e.follow = append(e.follow, baton.Event{Kind: baton.EvGuestFailed, NeverRan: w.rng.IntN(2) == 0})
		return
	}
	e.endOutgoing()
	w.goOn(d)
	e.follow = append(e.follow, baton.Event{Kind: baton.EvGuestRuns})
}

// goOn lets the guest run on, which must find the disk as it left it.
func (w *world) goOn(d *device) {
	g, info := d.guest, d.e.disk.Info()
	if !info.Active || info.Fenced {
		w.fail("%s's guest goes on with a disk that is fenced", d.id)
		return
	}
	c, err := d.read()
	if err != nil {
		w.trouble(d, "read", err)
		return
	}
	if !g.sees(c) {
		w.fail("%s's guest goes on under term %d and doesn't find what it wrote: %s", d.id, info.Term, c.differ(&g.view))
	}
	if c[headerAt] != 0 && w.saboteur != goesOnBeside {
		w.fail("%s's guest goes on under term %d beside its saved memory %d", d.id, info.Term, c[headerAt])
	}
	if g.kind == loaded {
		w.acts.teleports++
		if g.ram != g.stood {
			w.fail("%s's guest goes on with memory %v, and stood still with %v", d.id, g.ram, g.stood)
		}
	}
	d.e.gate.Runs()
	g.kind, g.attempt, g.term = running, "", info.Term
	if g.flight != nil {
		w.guestWrites(d, nil)
	}
}

// resume ends an attempt to give the VM away, or begins after a restart.
func (e *engine) resume(a baton.Action) {
	d, w := e.d, e.d.w
	e.endOutgoing()
	if e.disk == nil {
		return
	}
	if err := e.custody().Resume(a.Term); err != nil {
		w.trouble(d, "resume", err)
		if errors.Is(err, syscall.ENOSPC) {
			e.stays = &a
		}
		return
	}
	w.activated(d)
	if a.Guest && d.guest != nil {
		if d.suspended() && w.saboteur != goesOnBeside {
			d.guest = nil // it was about to end, or hadn't begun to go on
			e.events = append(e.events, baton.Event{Kind: baton.EvHypervisorDied})
			return
		}
		w.goOn(d)
	}
}

func (e *engine) kill() {
	e.endIncoming()
	e.endOutgoing()
	if g := e.d.guest; g != nil && g.kind == running {
		e.d.w.fail("%s kills a running guest", e.d.id)
	}
	e.d.guest = nil
}

// trouble is an error of a step. Only an injected fault explains it.
func (w *world) trouble(d *device, what string, err error) {
	// Layers have random names: the log of a seed must be the same each time.
	w.note("%s: %s: %s", d.id, what, layerNames.ReplaceAllString(err.Error(), "layer-…"))
	if !d.excused(err) {
		w.fail("%s: %s: %v", d.id, what, err)
	}
}

// crash ends the engine as kill -9 does, or the whole host.
func (w *world) crash(d *device, host bool) {
	loss := vfs.LoseNothing
	if host {
		loss = []vfs.Loss{vfs.LoseUnsynced, vfs.LoseSome}[w.rng.IntN(2)]
		d.guest.exits()
		d.guest, d.powered = nil, false
	}
	w.note("%s crashes, host=%v", d.id, host)
	d.stop(loss)
	w.acts.crashes++
}

// stop ends the engine at once, and leaves what a crash leaves.
func (d *device) stop(loss vfs.Loss) {
	e := d.e
	d.mem = d.mem.Crash(loss, d.w.rng.Uint64())
	d.records.closed = true
	d.fuse = fuse{}
	if e == nil {
		return
	}
	d.e = nil
	close(e.ended)
	if d.guest != nil {
		d.guest.flushing = nil // it is sent again
	}
	e.endOutgoing()
	e.letGoIncoming()
	for _, f := range e.feeds {
		f.closeOwner()
	}
	for _, f := range e.pushes {
		f.closeOwner()
	}
	if e.applying != nil {
		e.applying.closeReplica()
	}
	if e.disk != nil {
		if e.disk.Position() != d.sure || e.disk.Info().Err != nil {
			d.sure = vmdisk.Position{} // the same content may have another name by now, for instance for a replica that attached, or be getting it
		}
		_ = e.disk.Close() // its files are gone: it only ends its goroutines
	}
	_ = e.dir.Close()
	synctest.Wait()
}

// afterCrash checks what a disk that was written here is now, and takes that for what it is.
func (w *world) afterCrash(d *device) {
	if d.e.disk == nil || !d.owned || d.wentBackInCrash() {
		return
	}
	c, err := d.read()
	if err != nil {
		w.fail("%s's disk after a crash: %v", d.id, err)
		return
	}
	for i, n := range c {
		good := n == d.now[i] || n == d.durable[i]
		for _, m := range d.maybe[i] {
			good = good || n == m
		}
		if !good {
			w.fail("%s's sector %d (block %d) is %d after a crash, durable was %d, may be %v", d.id, i, offset(i)/vmdisk.Block, n, d.durable[i], d.maybe[i])
			return
		}
	}
	if g := d.guest; g != nil && g.kind != loaded && g.kind != incoming && !g.sees(c) {
		w.fail("%s's disk lost what a guest wrote when only the engine was killed: %s", d.id, c.differ(&g.view))
	}
	d.now, d.durable = *c, *c
	clear(d.maybe[:])
}

func (w *world) name() string {
	w.names++
	return fmt.Sprint(w.names)
}
