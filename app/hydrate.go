package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/holders"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/hydrating"
	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// hydrateRun fetches what this owner's disk lacks.
type hydrateRun struct {
	*hydrating.Run
	cancel context.CancelFunc
	done   chan struct{}
	hold   holdWish
}

// holdWish keeps a person's wish to have it now open while something comes of it.
type holdWish struct {
	mu  sync.Mutex
	end func() // nil while nothing does
}

// set says whether something comes.
func (h *holdWish) set(l *limits.Limits, vm string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case on && h.end == nil:
		h.end = l.Hold(vm)
	case !on && h.end != nil:
		h.end()
		h.end = nil
	}
}

// hydrateSoon begins to fetch what the disk lacks, if it lacks something, this device owns the VM, and nothing does so yet.
func (v *vm) hydrateSoon() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.hydrate != nil || v.disk == nil || v.closed || !v.ownerLocked() {
		return
	}
	info := v.disk.Info()
	if !info.Hydrating || !info.Active {
		return
	}
	at, ok := v.custodyOfDisk(v.disk).HandedAt(info.Term)
	if !ok {
		v.log.Error("The disk lacks blocks, and the history doesn't say of which position", "term", info.Term)
		return
	}
	ctx, cancel := context.WithCancel(v.e.ctx)
	run := &hydrateRun{cancel: cancel, done: make(chan struct{})}
	var err error
	run.Run, err = hydrating.New(hydrating.Options{
		Disk: v.disk, Net: fetchNet{v.e}, Log: v.log, Allow: v.mayPull, Waits: func(could []string) {
			run.hold.set(v.e.limits, v.id, could == nil)
			v.tellNobody(could)
		},
		Hello: fetch.Hello{
			Target: fetch.Target{VM: v.id, Disk: fetch.ID(v.disk.ID()), Size: v.disk.Size(), Term: info.Term}, At: fetch.Position(at),
		},
	})
	if err != nil {
		v.log.Error("What the disk lacks can't be fetched", "error", err)
		cancel()
		return
	}
	run.hold.set(v.e.limits, v.id, true)
	v.hydrate = run
	v.e.hub.publish(api.Event{Kind: "vm.hydrating", VM: v.id, Text: v.nameLocked() + " runs here; the rest of its disk is on its way."})
	v.e.spawn(func() { v.runHydrate(ctx, run) })
}

func (v *vm) runHydrate(ctx context.Context, run *hydrateRun) {
	err := run.Serve(ctx)
	run.hold.set(v.e.limits, v.id, false)
	v.mu.Lock()
	v.hydrate = nil
	v.mu.Unlock()
	run.cancel()
	close(run.done)
	switch {
	case err == nil:
		v.whole()
	case errors.Is(err, hydrating.ErrElsewhere):
		v.hydrateSoon()
	case errors.Is(err, vmdisk.ErrClosed):
		// It was rolled back, or is being closed.
	case ctx.Err() == nil:
		v.log.Error("What the disk lacks isn't fetched any more", "error", err)
		v.setProblem(&api.Error{Code: api.CodeInternal, Sentence: "The rest of the disk of " + v.name() + " can't be stored here.",
			Next: "The engine's log has the cause. Restart Tagalong when it is mended.", Cause: err.Error()})
	}
}

// whole ends what is kept of a hand-off onto a copy that wasn't whole, and begins to replicate the disk.
func (v *vm) whole() {
	if err := os.Remove(string(v.lacking())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.log.Warn("Removing the note of what was lacking failed", "error", err)
	}
	v.e.tell("vm.whole", v, "All of "+v.name()+" is on this device now.")
	v.e.saveRecordSoon()
	v.syncFeeds()
}

// mayPull says what may be fetched from a device though the guest doesn't wait for it: what of other sites, as pushes may.
func (v *vm) mayPull(device string) fetch.Allowance {
	if !v.e.fromAfar(device) {
		return fetch.Allowance{Pull: true}
	}
	return fetch.Allowance{Pull: v.e.limits.Allowance(v.id).May, Pace: v.e.limits.Pace(limits.Down)}
}

// stopHydrate ends the fetching and waits for its end.
func (v *vm) stopHydrate() {
	v.mu.Lock()
	run := v.hydrate
	v.mu.Unlock()
	if run != nil {
		run.cancel()
		<-run.done
	}
}

// lackingFile is where it is kept what the giver of a hand-off said that this copy lacks.
type lackingFile string

func (f lackingFile) Read() ([]byte, error) {
	info, err := os.Stat(string(f))
	if err != nil {
		return nil, err
	}
	if info.Size() > handoff.MaxDirty+4096 {
		return nil, custody.ErrLackingFormat
	}
	return os.ReadFile(string(f))
}

func (f lackingFile) Write(b []byte) error { return durable.Write(string(f), b) }

func (v *vm) lacking() lackingFile { return lackingFile(filepath.Join(v.dir, "lacking")) }

// fetchNet is where holders are.
type fetchNet struct{ e *Engine }

func (n fetchNet) Connected() []string {
	var out []string
	for _, p := range n.e.host.Peers() {
		if p.Connected && n.e.dir.IsMember(p.ID) {
			out = append(out, p.ID)
		}
	}
	return out
}

func (n fetchNet) Watch() (<-chan struct{}, func()) { return n.e.host.Watch() }

func (n fetchNet) Open(ctx context.Context, device string) (fetch.Stream, error) {
	return n.e.host.Open(ctx, device, fetch.Protocol)
}

// handleFetch lends this device's copy to the VM's owner, who lacks blocks of it.
func (e *Engine) handleFetch(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	holdpoint.At(ctx, holdpoint.Lend)
	var lent *holders.Lent
	var v *vm
	err := fetch.Serve(ctx, s, func(h fetch.Hello) (fetch.Reader, fetch.State, error) {
		var disk *vmdisk.Store
		var err error
		if v, disk, err = e.lender(s.Peer(), h); err != nil {
			return nil, fetch.State{}, err
		}
		var state fetch.State
		if lent, state, err = holders.Lend(ctx, disk); err != nil {
			return nil, fetch.State{}, err
		}
		v.lends(s.Peer(), 1)
		return lent, state, nil
	}, nil)
	if lent != nil {
		v.lends(s.Peer(), -1)
		if closeErr := lent.Close(); closeErr != nil {
			e.log.Warn("Letting go of the lent disk failed", "error", closeErr)
		}
	}
	e.ownersStreamEnded(ctx, s, fetch.Protocol, err)
}

// lender is the VM whose copy may be lent to the device: to its owner by this device's own directory, under that very term, who was given it at
// the position that it asks for; and only a copy that is part of that history.
func (e *Engine) lender(device string, h fetch.Hello) (*vm, *vmdisk.Store, error) {
	refuse := func(code, text string) (*vm, *vmdisk.Store, error) {
		return nil, nil, &replica.Refusal{Code: code, Text: text}
	}
	v := e.vm(h.VM)
	term, owner, ok := e.dir.Owner(h.VM)
	switch {
	case !ok || v == nil || h.Term > term:
		return refuse(replica.RefuseUnknown, "the VM's record hasn't arrived yet")
	case h.Term < term || owner != device:
		return refuse(replica.RefuseOldTerm, "the owner is another device by now")
	}
	disk := v.currentDisk()
	if disk == nil || disk.ID() != vmdisk.ID(h.Disk) {
		return refuse(replica.RefuseUnknown, "this device has no such disk")
	}
	c := v.custody()
	if at, ok := c.HandedTo(h.Term, device); !ok || at != vmdisk.Position(h.At) {
		return refuse(fetch.RefuseHistory, "the owner wasn't given the disk at that position")
	}
	v.mu.Lock()
	state := v.state
	v.mu.Unlock()
	if state != baton.Replica && state != baton.Given || c.Stand() != custody.Behind {
		return refuse(replica.RefuseBusy, "what this device has may be another version")
	}
	return v, disk, nil
}

// lends counts the streams on which a device reads this one's copy.
func (v *vm) lends(device string, n int) {
	v.mu.Lock()
	v.lent[device] += n
	ended := v.lent[device] == 0
	if ended {
		delete(v.lent, device)
	}
	v.mu.Unlock()
	if ended || n > 0 {
		v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
	}
}

// handleLacking hears from a giver what this device's copy lacks.
func (e *Engine) handleLacking(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	var v *vm
	err := handoff.ReceiveSets(ctx, s, func(x handoff.Sets) error {
		if v = e.vm(x.VM); v == nil {
			return errNotOwner
		}
		if v.ownerID() != s.Peer() {
			return errNotOwner
		}
		return nil
	}, func() { v.post(ctx, baton.Event{Kind: baton.EvProgress}) }, func(x handoff.Sets) error {
		return v.keepLacking(ctx, s.Peer(), x)
	})
	if err != nil {
		e.log.Warn("What this device's copy lacks couldn't be kept", "device", s.Peer(), "error", err)
	}
}

// keepLacking makes durable what the giver said, unless it is another's turn by now.
func (v *vm) keepLacking(ctx context.Context, giver string, x handoff.Sets) error {
	v.keeping.Lock()
	defer v.keeping.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.ownerID() != giver {
		return errNotOwner
	}
	return v.custody().Keep(custody.Lacking{From: giver, Attempt: x.Attempt, Position: vmdisk.Position(x.Position), Sets: x.Sets})
}

// dropStale lets a replica be again what it was before it was to be gone on with: that was never done, or was given back.
func (v *vm) dropStale() error {
	if disk := v.currentDisk(); disk == nil || !disk.Info().Hydrating {
		return nil
	}
	v.keeping.Lock()
	defer v.keeping.Unlock()
	v.mu.Lock()
	replica := v.state == baton.Replica
	v.mu.Unlock()
	if !replica {
		return nil
	}
	return v.custody().DropStale()
}

// tellNobody says that nobody is there who has what the disk lacks, with who could help; nil: somebody is there again.
func (v *vm) tellNobody(could []string) {
	if could == nil {
		v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
		return
	}
	v.e.tell("vm.waits", v, v.waitsText(could))
}
