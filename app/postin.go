package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"tagalong.org/tagalong/app/blockindex"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/diskpush"
	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// What comes in by pushes: who may push into this device's copy.

// pushStalled is how long nothing must have come of a push before another device's takes its place.
const pushStalled = 30 * time.Second

// errStaleTerm: the VM has another owner than when the push began.
var errStaleTerm = errors.New("the VM has another owner by now")

// handlePush serves a device that has a newer state of a VM's disk.
func (e *Engine) handlePush(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &applyRun{owner: s.Peer(), push: true, cancel: cancel, done: make(chan struct{})}
	var v *vm
	var applier *vmdisk.Applier
	var look *blockindex.Look
	defer func() { look.Close() }()
	err := push.Receive(ctx, s, func(h push.Hello) (push.Replica, push.State, error) {
		var err error
		if v, err = e.pushedTo(s.Peer(), h); err != nil {
			return push.Replica{}, push.State{}, err
		}
		run.term, run.afar = h.Term, e.fromAfar(s.Peer())
		if applier, err = v.beginApplying(run, h.Size); err != nil {
			return push.Replica{}, push.State{}, err
		}
		v.followsOwner()
		if err := awaitTurn(ctx, applier); err != nil {
			return push.Replica{}, push.State{}, err
		}
		sink, err := diskpush.NewSink(applier)
		if err != nil {
			return push.Replica{}, push.State{}, err
		}
		taken := push.Replica{Sink: sink}
		if look = e.blocks.Look(!applier.State().Complete, e.peek); look != nil {
			taken.Index = look
		}
		sink.Seen = func(off int64, p []byte) { e.blocks.Learn(v.id, off, p) }
		if run.afar {
			taken.Pace = e.limits.Pace(limits.Down)
		}
		sink.May, sink.Reached = func() error { return v.mayCommit(h) }, v.notePushed
		return taken, push.State(diskmirror.State(applier.State())), nil
	}, &run.pushed)
	v.endApplying(run, applier)
	e.ownersStreamEnded(ctx, s, push.Protocol, err)
	e.post.soon()
}

// pushTurn is how long a push waits here for earlier ones to be stored where they belong; its sender waits twice as long.
const pushTurn = 15 * time.Second

// awaitTurn waits until the replica can take another cut. What takes longer is refused before anything was sent, and tried again.
func awaitTurn(ctx context.Context, a *vmdisk.Applier) error {
	short, cancel := context.WithTimeout(ctx, pushTurn)
	defer cancel()
	err := a.Await(short)
	if err != nil && ctx.Err() == nil && short.Err() != nil {
		return &replica.Refusal{Code: replica.RefuseBusy, Text: "this device is still storing what came before"}
	}
	return err
}

// openBlocks takes up what this device knew of where which content is.
func (e *Engine) openBlocks() {
	if err := e.blocks.Load(e.blocksFile()); err != nil {
		e.log.Warn("Where which content is on this device has to be learned anew", "error", err)
	}
}

// keepBlocks keeps it.
func (e *Engine) keepBlocks() {
	if err := e.blocks.Save(e.blocksFile()); err != nil {
		e.log.Warn("Where which content is on this device is forgotten", "error", err)
	}
}

func (e *Engine) blocksFile() string { return filepath.Join(e.opt.DataDir, "blocks") }

// peek reads what a VM's disk has here, if there is one.
func (e *Engine) peek(vm string, p []byte, off int64) error {
	if v := e.vm(vm); v != nil {
		if disk := v.currentDisk(); disk != nil {
			return disk.Peek(p, off)
		}
	}
	return errNoCut
}

// pushedTo checks, by this device's own directory, that the device may push that cut, and finds or makes the replica.
func (e *Engine) pushedTo(device string, h push.Hello) (*vm, error) {
	term, _, ok := e.dir.Owner(h.VM)
	v := e.vm(h.VM)
	switch {
	case !e.dir.IsMember(device):
		return nil, &replica.Refusal{Code: replica.RefuseOther, Text: "the device isn't in the fleet"}
	case !ok || h.Term > term || v == nil:
		return nil, &replica.Refusal{Code: replica.RefuseUnknown, Text: "the VM's record hasn't arrived yet"}
	case h.Term < term:
		return nil, &replica.Refusal{Code: replica.RefuseOldTerm, Text: fmt.Sprintf("the VM is at term %d", term)}
	case len(e.dir.Heads(h.VM)) != 1:
		return nil, &replica.Refusal{Code: replica.RefuseBusy, Text: "the VM has two versions, of which the person has to choose"}
	case !e.history(h.VM, h.Cut):
		return nil, &replica.Refusal{Code: replica.RefuseOther, Text: "the VM's history doesn't have this cut"}
	}
	if a := e.limits.Allowance(h.VM); !a.May && e.fromAfar(device) {
		return nil, &replica.Refusal{Code: replica.RefuseBusy, Text: a.Sentence(time.Now())}
	}
	if err := v.mayReceive(); err != nil {
		return nil, err
	}
	if err := v.ensureReplica(h.Target); err != nil {
		return nil, err
	}
	if err := v.mayTake(h.Cut.Term); err != nil {
		return nil, err
	}
	return v, nil
}

// fromAfar says that the device is of another site: the limits count.
func (e *Engine) fromAfar(device string) bool {
	e.sites.mu.Lock()
	defer e.sites.mu.Unlock()
	return !slices.Contains(e.sites.view.Here.Members, device)
}

// endForbidden ends the pushes to here that aren't to go on now. They are gone on with when they may.
func (e *Engine) endForbidden() {
	for _, v := range e.allVMs() {
		v.mu.Lock()
		run := v.applying
		v.mu.Unlock()
		if run != nil && run.push && run.afar && !e.limits.Allowance(v.id).May {
			run.cancel()
		}
	}
}

// mayCommit says whether what was pushed may still become the disk.
func (v *vm) mayCommit(h push.Hello) error {
	if term, _, ok := v.e.dir.Owner(v.id); !ok || term != h.Term || !v.e.history(v.id, h.Cut) {
		return errStaleTerm
	}
	return v.mayReceive()
}

// notePushed tells that a push has brought this device's replica further.
func (v *vm) notePushed() {
	v.mu.Lock()
	v.received, v.mirrored = time.Now(), false
	v.mu.Unlock()
	v.e.post.soon()
}

// gives says whether a stream that writes the replica gives way to another one. The caller holds v.mu.
func (r *applyRun) gives(to *applyRun, now time.Time) bool {
	if !to.push || r.owner == to.owner && r.push {
		return true
	}
	// The owner's mirror is better than any push, and one push is as good as another.
	if n := r.pushed.Received.Load(); n != r.seen || r.seenAt.IsZero() {
		r.seen, r.seenAt = n, now
	}
	return r.push && now.Sub(r.seenAt) >= pushStalled
}
