package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/scrub"
	"tagalong.org/tagalong/app/second"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// vm is one VM on this device, as its owner or with a replica of its disk. One goroutine (run)
// owns the baton machine; everything else reads what is under mu.
type vm struct {
	e   *Engine
	id  string
	dir string // durable: the disk, a saved memory
	run string // sockets, process ID, log of the hypervisor
	log *slog.Logger
	// second holds flushes back until there is a second copy, if the person wants that.
	second *second.Gate

	// saving is held over a look at what the record says and its writing.
	saving sync.Mutex
	// sure is held over a look whether anything writes the disk and the saying so.
	sure sync.Mutex
	// tellings are the engine's tellReplicas' own: what was told of each replica.
	tellings map[string]telling

	// keeping is held over the keeping of what a giver says that this copy lacks.
	keeping sync.Mutex

	// verifies is held by who compares the disk with its copies.
	verifies chan struct{}
	// scrubs guards what is kept of the background verification.
	scrubs sync.Mutex
	madeUp time.Time // when it was last looked whether somebody missed a part of it; scrubs guards this and what follows, too
	// How fast the round gets on, and why it doesn't (one of the api.VerifyRests).
	scrubMeter scrub.Meter
	scrubRests string

	events chan baton.Event
	asks   chan ask
	landed chan *incomingRun // whose memory has ended to come
	// answers are guests whose hypervisor answers that waited for memory.
	answers chan hypervisor.Guest
	look    chan struct{} // 1-buffered: the history may say something new
	done    chan struct{} // closed when the loop has ended
	cancel  context.CancelFunc

	bringing sync.Mutex // held while the switch of a VM that is carried here is made known

	// Owned by the loop goroutine.
	machine  *baton.Machine
	outgoing *switching.Giver
	incoming *incomingRun
	again    bool          // the history is to be looked at again: something couldn't be written
	withheld *baton.Action // what the giver is told when the memory is whole
	stays    *baton.Action // to go on here, which there was no room for; nil: there is no such thing
	stood    string        // why the VM stands still in a hand-off, as last told

	// op is held by whoever changes what the VM does: a person's command or a hand-off.
	// guarded by mu
	mu        sync.Mutex
	op        string
	state     baton.State // the machine's, after its last step
	term      uint64
	entered   time.Time // when state was entered
	with      string    // the device at the other end of the machine's hand-off
	guest     hypervisor.Guest
	guestWas  hypervisor.State
	saved     saved         // what is known of a suspended guest's memory
	kept      volumes.Table // how the store on this device is cut; zero until that is known
	problem   *api.Error
	disk      *vmdisk.Store
	export    *export
	feeds     map[string]*feedRun // by device, while owner
	wanted    map[string]int      // devices that are mirrored to however far they are, and how often that was asked for
	applying  *applyRun           // while replica
	hydrate   *hydrateRun         // while owner of a disk that isn't whole
	lent      map[string]int      // how many streams a device reads this one's copy on
	heldBack  string              // the device whose feed rests, because it is being told what it lacks
	comparing *compareRun         // while replica
	seeding   *seedRun            // while replica
	expecting *incomingRun        // whose memory stream may come
	trailing  *trailing           // memory that comes after the guest
	serving   *servingRun         // and that of a guest that was given away; only the loop changes it
	word      *custody.Word       // what came with the transfer
	converged bool                // the last attempt to give it away ended because it was idle
	takes     int                 // the version of the memory stream that both this device and who asked last understand
	sealed    bool                // the replica is loaded and waits for the baton
	sw        *switchRun
	// wish is what the person has said of the next switch from here, or to here.
	wish wish
	// halfGiven is the last attempt of which the taker was told what its copy lacks.
	halfGiven string
	// noting is held by whoever asks for the guest's state, or changes it, until it is noted: what was true before doesn't replace what is true now.
	noting sync.Mutex
	// asked is the switch that it is noted of that a person asked for it here; "" if none is.
	asked string
	// carry is what is under way where the VM is carried to another device, goesOn that it is about to go on that was carried here.
	carry  *carryRun
	goesOn bool
	// trips are what was seen of the guest's memory on its way, by the other device.
	trips map[string]trip
	// gauged is what was found of the ways to and from other devices, by device; gauging is held by who finds it out.
	gauged  map[string]gauged
	gauging sync.Mutex
	// slowed says that a switch lets the guest stand still and go on, time and again: that is no news.
	slowed bool
	// under is the switch that the loop's step is about. Once the step has let go of the VM, sw may be another one, which the step must not
	// end. It belongs to the loop.
	under *switchRun
	// holds says that the loop's step holds the VM for a hand-off, and has yet to let go of it.
	holds    bool
	starting bool
	// clock tends the guest's clock, agent is what is known of its agent.
	clock     *clockRun
	agent     api.AgentState
	claimed   int64  // bytes of memory that a guest about to start here was promised
	told      string // the gist of the record as last written
	aside     *asideRun
	calledOff calledOff
	closed    bool                  // nothing begins here any more
	opened    map[string]*openPoint // restore points that the VM sees, by ID
	heads     string                // the sides that the person was told of last; "" if there was one
	twice     string                // the device that, as the person was told, owns the VM under the same term; "" if none
	received  time.Time             // when the owner's last barrier, or a push's cut, came in
	mirrored  bool                  // that was by the owner's own stream
	// mirroredKept is what of that is durable.
	mirroredKept bool
	// refused is what the last giver said when it refused, offeredHardware what the last one that offered says of the VM's hardware.
	refused         refusal
	offeredHardware string
	// offeredApart says that its guest is to go ahead of its memory.
	offeredApart bool
	hearsay      map[string]hearsay // the owner's words on replicas, by device, while this device isn't the owner
}

// ask is an event whose sender waits for what becomes of it.
type ask struct {
	ev     baton.Event
	result chan error
}

// batonTick is how often the machine is told the time.
const batonTick = 250 * time.Millisecond

// maxEvents bounds what waits for the loop; a peer that sends more waits itself.
const maxEvents = 128

var errVMClosed = errors.New("the VM is being closed")

func (e *Engine) vmDir(id string) string  { return filepath.Join(e.opt.DataDir, "vms", id) }
func (v *vm) diskDir() string             { return v.e.diskDir(v.id) }
func (e *Engine) runDir(id string) string { return filepath.Join(e.run, id[:12]) }

// newVM makes the VM around a machine and starts its loop. first, if not nil, is the first event.
func (e *Engine) newVM(id string, m *baton.Machine, disk *vmdisk.Store, guest hypervisor.Guest, first *baton.Event) *vm {
	v := e.makeVM(id, m, disk)
	v.enter(guest, first)
	return v
}

// makeVM makes the VM without beginning anything; enter does.
func (e *Engine) makeVM(id string, m *baton.Machine, disk *vmdisk.Store) *vm {
	v := &vm{
		e: e, id: id, dir: e.vmDir(id), run: e.runDir(id), log: e.log.With("vm", id),
		verifies: make(chan struct{}, 1), events: make(chan baton.Event, maxEvents), asks: make(chan ask), landed: make(chan *incomingRun), answers: make(chan hypervisor.Guest), look: make(chan struct{}, 1), done: make(chan struct{}),
		machine: m, disk: disk, feeds: map[string]*feedRun{}, lent: map[string]int{}, opened: map[string]*openPoint{},
		state: m.State(), term: m.Term(), entered: time.Now(), with: m.Peer(),
	}
	kept, err := disktool.KeptTable(v.diskDir())
	if err != nil {
		v.log.Warn("The record alone says how the disk is cut", "error", err)
	}
	v.kept = kept
	v.openSource()
	v.second = second.New(v.whyNoSecond, v.tellWaits)
	v.refreshSync()
	return v
}

// enter starts the VM's loop, and follows the guest that an earlier engine left, if there is one.
func (v *vm) enter(guest hypervisor.Guest, first *baton.Event) {
	ctx, cancel := context.WithCancel(v.e.ctx)
	v.cancel, v.guest = cancel, guest
	if guest != nil {
		v.reservePoints()
		v.e.spawn(func() { v.followGuest(guest) })
	}
	v.lookSoon()
	v.e.spawn(func() { v.loop(ctx, first) })
}

// loop feeds the machine and performs what it says, one event at a time.
func (v *vm) loop(ctx context.Context, first *baton.Event) {
	defer close(v.done)
	if first != nil {
		_ = v.step(ctx, *first) // refusals are logged
		v.recallAsked()
	}
	tick := time.NewTicker(batonTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-v.events:
			_ = v.step(ctx, ev)
		case a := <-v.asks:
			a.result <- v.step(ctx, a.ev)
		case r := <-v.landed:
			v.landedHere(r)
		case g := <-v.answers:
			v.answered(ctx, g)
		case <-v.look:
			v.followHistory(ctx)
		case now := <-tick.C:
			_ = v.step(ctx, baton.Event{Kind: baton.EvTick, Now: now})
			v.endUnanswered(now)
			v.tellStandstill(now)
			if v.again {
				v.followHistory(ctx)
			}
			v.resumeAgain(ctx)
		}
	}
}

// do hands an event to the loop and waits until all that follows from it at once is done. The error is the machine's refusal.
func (v *vm) do(ctx context.Context, ev baton.Event) error {
	a := ask{ev, make(chan error, 1)}
	select {
	case v.asks <- a:
		return <-a.result
	case <-ctx.Done():
		return ctx.Err()
	case <-v.done:
		return errVMClosed
	}
}

// lookSoon has the loop compare what the machine believes with the VM's history.
func (v *vm) lookSoon() {
	select {
	case v.look <- struct{}{}:
	default:
	}
}

// post hands an event to the loop, and says whether it did; it waits when the loop is behind.
func (v *vm) post(ctx context.Context, ev baton.Event) bool {
	select {
	case v.events <- ev:
		return true
	case <-ctx.Done():
	case <-v.done:
	}
	return false
}

// step runs one event through the machine, and the events that its actions make, in order. It returns the machine's first
// refusal.
func (v *vm) step(ctx context.Context, ev baton.Event) (refused error) {
	v.under, v.holds = v.currentSwitch(), false
	defer v.letGo()
	queue := []baton.Event{ev}
	for len(queue) > 0 {
		ev, queue = queue[0], queue[1:]
		before := v.machine.State()
		actions, err := v.machine.Step(ev)
		if err != nil {
			v.log.Warn("Hand-off event refused", "event", ev.Kind, "state", before, "peer", ev.Peer, "error", err)
			v.settle(before, ev.Kind)
			if ev.Kind == baton.EvWant {
				v.endUnder(reasonNotComparedYet)
			}
			if refused == nil {
				refused = err
			}
			continue
		}
		if after := v.machine.State(); after != before {
			v.log.Info("Hand-off state", "from", before, "to", after, "event", ev.Kind, "reason", ev.Reason)
			v.lookSoon() // what was no news to the machine in one state may be in another
		}
		v.settle(before, ev.Kind)
		for _, a := range actions {
			if follow, ok := v.perform(ctx, a); ok {
				queue = append(queue, follow)
			}
		}
	}
	return refused
}

// rests says that no hand-off is under way.
func rests(s baton.State) bool {
	return s == baton.Owned || s == baton.Replica || s == baton.Ousted
}

// settle publishes the machine's state to the rest, and takes the VM for a hand-off. What the state stands for isn't done yet: see letGo.
func (v *vm) settle(before baton.State, kind baton.EventKind) {
	state := v.machine.State()
	asked := kind == baton.EvWant || kind == baton.EvPeerAsk
	v.mu.Lock()
	v.state, v.term, v.with = state, v.machine.Term(), v.machine.Peer()
	if before != state {
		v.entered = time.Now()
	}
	if !rests(state) {
		v.op = opSwitch
	}
	v.holds = v.holds || before != state || asked
	v.mu.Unlock()
	if before != state {
		v.tellTurn(before, state, kind)
	}
}

// letGo ends the hand-off's hold on the VM, if the step has brought it to rest: when all of the step's actions are done, or the end of the
// switch is about to be told, whichever comes first. Nobody else may act on a VM whose guest is still being taken up again. It does so once
// a step: what holds the VM afterwards is somebody else's.
func (v *vm) letGo() {
	v.mu.Lock()
	free := v.holds && rests(v.state) && v.op == opSwitch
	if free {
		v.op = ""
	}
	if rests(v.state) {
		v.holds = false
	}
	v.mu.Unlock()
	if free {
		v.e.saveRecordSoon()
		v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
	}
}

// endUnder ends the step's switch without a move, and the hold on the VM.
func (v *vm) endUnder(reason string) {
	v.letGo()
	v.endSwitch(v.under, reason)
}

// doneUnder ends the step's switch, and the hold on the VM. by is the device that has the VM now: if that isn't the one that was to have it, the
// switch came to nothing.
func (v *vm) doneUnder(by string) (api.Switch, bool) {
	v.letGo()
	if v.under != nil && v.under.s.To != by {
		v.endSwitch(v.under, reasonCameBack)
		return api.Switch{}, false
	}
	if by == v.e.host.ID() && v.under != nil && v.under.brought {
		// It is over when the VM goes on.
		if s, ok := v.updateRun(v.under, func(r *switchRun) {
			r.s.Phase, r.s.CanEnd, r.s.Bytes, r.s.Total, r.s.Rate, r.s.ETA = api.PhaseResume, false, 0, 0, 0, 0
		}); ok {
			v.publishSwitch("switch.phase", s, fmt.Sprintf("%s: %s.", s.VMName, phaseText(s.Phase)))
		}
		v.goOnSoon()
		return api.Switch{}, false
	}
	return v.switchDone(v.under, v.e.deviceName(by))
}

// What a VM can be busy with, as the person reads it.
const (
	opSwitch  = "it is being switched"
	opStart   = "it is starting"
	opStop    = "it is stopping"
	opSuspend = "it is being suspended"
	opResume  = "it is being resumed"
	opRemove  = "it is being removed"
	opTake    = "it is being taken over"
	opSeed    = "its copy is being filled from a file"
	opReset   = "it is being restarted"
	opSet     = "its settings are being changed"
)

// begin takes the VM for an operation, or says what it is busy with.
func (v *vm) begin(op string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.op != "" {
		return errBusy(v.nameLocked(), v.op)
	}
	v.op = op
	return nil
}

func (v *vm) end(op string) {
	v.mu.Lock()
	if v.op == op {
		v.op = ""
	}
	v.mu.Unlock()
	v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
}

// record is the VM's record in the directory; ok is false if there is none (yet, or any more).
func (v *vm) record() (directory.VM, bool) {
	return v.e.dir.VM(v.id)
}

func (v *vm) nameLocked() string { return v.name() }

// name is what the person calls the VM.
func (v *vm) name() string {
	if r, ok := v.record(); ok {
		return r.Name
	}
	return "This VM"
}

// owner says whether this device may run the VM now.
func (v *vm) owner() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ownerLocked()
}

func (v *vm) ownerLocked() bool {
	return ownedState(v.state)
}

// mine fails unless this device owns the VM, with a sentence about where it is.
func (v *vm) mine() error {
	if v.owner() {
		return nil
	}
	return v.rather(v.errNotHere())
}

// ownerID is the owner's device ID by the directory's chain, or "".
func (v *vm) ownerID() string {
	_, owner, _ := v.e.dir.Owner(v.id)
	return owner
}

// close ends the VM's goroutines and lets go of its guest and disk.
func (v *vm) close() {
	v.cancel()
	<-v.done
	v.mu.Lock()
	v.closed = true
	aside := v.aside
	v.mu.Unlock()
	if aside != nil {
		<-aside.ended
	}
	v.stopHydrate()
	v.stopFeeds()
	v.stopApplying()
	v.stopSeeding()
	if disk := v.currentDisk(); disk != nil {
		disk.EndWaiting() // else a read that waits for a holder keeps the engine from ending
	}
	v.stopExport()
	v.stopPoints()
	v.mu.Lock()
	guest, disk := v.guest, v.disk
	v.guest, v.disk = nil, nil
	if v.clock != nil {
		v.clock.cancel()
	}
	v.mu.Unlock()
	if guest != nil {
		if err := guest.Close(); err != nil {
			v.log.Warn("Letting go of the hypervisor failed", "error", err)
		}
	}
	if disk != nil {
		if err := disk.Close(); err != nil {
			v.log.Error("Closing the disk failed", "error", err)
		}
	}
}

// find looks a VM up by name or ID; with "" the only one there is.
func (e *Engine) find(name string) (*vm, error) {
	e.mu.Lock()
	vms := make([]*vm, 0, len(e.vms))
	for _, v := range e.vms {
		vms = append(vms, v)
	}
	e.mu.Unlock()
	var known []string
	var found []*vm
	for _, v := range vms {
		r, ok := v.record()
		if !ok {
			continue
		}
		known = append(known, r.Name)
		if name == "" || v.id == name || r.Name == name {
			found = append(found, v)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case name == "" && len(found) > 1:
		return nil, &api.Error{Code: api.CodeUsage, Sentence: "There are several VMs.", Next: "Say which one; tagalong vm list shows them."}
	case len(found) > 1:
		return nil, &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("Several VMs are called %q.", name), Next: "Use the VM's ID (tagalong vm list --json)."}
	}
	for _, r := range e.records() {
		if why := e.whyUnopened(r.ID); why != nil && (r.ID == name || r.Name == name) {
			return nil, e.unopenedStatus(r, why).Problem
		}
	}
	return nil, errNoSuchVM(name, known)
}

func (e *Engine) vm(id string) *vm {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.vms[id]
}

func validVMID(id string) bool {
	if len(id) != 32 {
		return false
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
