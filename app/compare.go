package app

import (
	"context"
	"errors"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskcompare"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/vmdisk"
)

// errCompareFirst: mirroring would copy all of the disk, or be refused: what differs is to be found out first.
var errCompareFirst = errors.New("the copy must be compared first")

// compareTries is how often a comparison may fail in a row, other than by a lost connection, before everything is copied to a
// device whose copy lies in this history. One outside of it is never written without.
const compareTries = 3

// mirrorWhatDiffers mirrors, and compares first where that is worth it.
func (f *feedRun) mirrorWhatDiffers(ctx context.Context) error {
	err := f.mirror(ctx, f.unfit < compareTries)
	if !errors.Is(err, errCompareFirst) {
		return err
	}
	err = f.compare(ctx)
	switch {
	case err == nil:
		f.unfit = 0
		return f.mirror(ctx, true)
	case errors.Is(err, p2p.ErrProtocol):
		// A device with an older program: it gets everything, unless its copy lies outside of this history.
		return f.mirror(ctx, false)
	case ctx.Err() == nil && !usual(err):
		f.unfit++
	}
	return err
}

// compare finds out which blocks the device's copy lacks.
func (f *feedRun) compare(ctx context.Context) error {
	version := compare.Version
	disk, target, s, err := f.open(ctx, compare.Protocol)
	if errors.Is(err, p2p.ErrProtocol) {
		version = 1
		disk, target, s, err = f.open(ctx, compare.ProtocolV1)
	}
	if err != nil {
		return err
	}
	defer s.Reset()
	began, c := time.Now(), (*vmdisk.Comparison)(nil)
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	err = compare.Run(ctx, s, compare.Hello{Version: version, Target: target}, func(state compare.State) (compare.Disk, error) {
		var err error
		if c, err = disk.Compare(f.device, diskmirror.ReplicaState(disk, target.Size, state)); err != nil {
			return nil, err
		}
		f.v.e.hub.publish(api.Event{Kind: "replica.changed", VM: f.v.id, Device: f.device})
		return diskcompare.Owner(c, f.v.copyTurns().politely(ctx)), nil
	}, &f.compared)
	if err != nil {
		return err
	}
	differ := c.Remaining()
	if err := c.Finish(); err != nil {
		return err
	}
	f.v.log.Info("A copy was compared with this disk", "device", f.device, "differs", differ, "duration", time.Since(began))
	return nil
}

// compareRun is an owner's comparison with this device's replica.
type compareRun struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// handleCompare serves an owner that wants to know in what this device's replica differs. The replica is only read.
func (e *Engine) handleCompare(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &compareRun{cancel: cancel, done: make(chan struct{})}
	defer close(run.done)
	var copy held
	var v *vm
	err := compare.Serve(ctx, s, func(h compare.Hello) (compare.Reader, compare.State, error) {
		var err error
		if v, err = e.replicaFor(s.Peer(), h.Target); err != nil {
			return nil, compare.State{}, err
		}
		var state vmdisk.ReplicaState
		if copy, state, err = v.beginComparing(ctx, run); err != nil {
			return nil, compare.State{}, err
		}
		return diskcompare.Reader(copy, v.copyTurns().politely(ctx)), diskmirror.State(state), nil
	}, nil)
	if copy != nil {
		if closeErr := copy.Close(); closeErr != nil {
			e.log.Warn("Letting go of the replica failed", "error", closeErr)
		}
	}
	if v != nil {
		v.mu.Lock()
		if v.comparing == run {
			v.comparing = nil
		}
		v.mu.Unlock()
	}
	e.ownersStreamEnded(ctx, s, compare.Protocol, err)
}

// held is a replica that stays as it is until it is closed.
type held interface {
	vmdisk.Reader
	Close() error
}

// beginComparing ends an earlier comparison and holds the replica as it is for this one: a whole one at its position, or what one that
// isn't whole has to offer.
func (v *vm) beginComparing(ctx context.Context, run *compareRun) (held, vmdisk.ReplicaState, error) {
	v.mu.Lock()
	if v.seeding != nil {
		v.mu.Unlock()
		return nil, vmdisk.ReplicaState{}, errSeeding
	}
	earlier, disk := v.comparing, v.disk
	v.comparing = run
	v.mu.Unlock()
	if earlier != nil {
		earlier.cancel()
		<-earlier.done
	}
	if disk == nil {
		return nil, vmdisk.ReplicaState{}, errVMClosed
	}
	if !disk.ReplicaState().Complete {
		return v.offer(disk)
	}
	cut, err := disk.Cut(ctx)
	if err != nil {
		return nil, vmdisk.ReplicaState{}, err
	}
	state := disk.ReplicaState()
	if !state.Complete || state.Position != cut.Position() {
		// It moved between the two questions: the owner asks again.
		return nil, state, errors.Join(&replica.Refusal{Code: replica.RefuseBusy, Text: "the copy is moving"}, cut.Close())
	}
	return cut, state, nil
}

// offer holds what this device has of a disk that isn't whole here: seeded, or of a first copy that was another owner's.
func (v *vm) offer(disk *vmdisk.Store) (held, vmdisk.ReplicaState, error) {
	v.stopApplying() // of the owner's, which has another stream now
	o, err := disk.Offer()
	if errors.Is(err, vmdisk.ErrApplying) || errors.Is(err, vmdisk.ErrComplete) {
		return nil, vmdisk.ReplicaState{}, errors.Join(&replica.Refusal{Code: replica.RefuseBusy, Text: "the copy is moving"}, err)
	}
	if err != nil {
		return nil, vmdisk.ReplicaState{}, err
	}
	return o, o.State(), nil
}

// stopComparing ends the owner's comparison with this device's replica, if there is one, and waits for its end.
func (v *vm) stopComparing() {
	v.mu.Lock()
	run := v.comparing
	v.mu.Unlock()
	if run != nil {
		run.cancel()
		<-run.done
	}
}
