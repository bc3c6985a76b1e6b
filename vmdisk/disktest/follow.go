// Package disktest has what several packages' tests do with disks.
//
// What it guarantees: Follow leaves a replica at its owner's position, with everything acknowledged. What it doesn't: it is no mirror;
// nothing is bounded, queued or tried again. Only tests import it.
//
// Tests: those of app/custody, app/holders and app/hydrating, which use it.
package disktest

import (
	"context"
	"errors"
	"fmt"

	"tagalong.org/tagalong/vmdisk"
)

// Follow flushes an owner's disk and brings the replica of that name to where it is, without a network between them. Nothing may write to
// the owner meanwhile. Errors: those of the two disks, and ctx's.
func Follow(ctx context.Context, owner, replica *vmdisk.Store, name string) (err error) {
	if err := owner.Flush(); err != nil {
		return fmt.Errorf("follow %s: %w", name, err)
	}
	applier, err := replica.Apply()
	if err != nil {
		return fmt.Errorf("follow %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, applier.Close()) }()
	feed, err := owner.Attach(name, applier.State())
	if err != nil {
		return fmt.Errorf("follow %s: %w", name, err)
	}
	defer feed.Close()
	for replica.Position() != owner.Position() || feed.Progress().Remaining > 0 {
		op, err := feed.Next(ctx)
		if err != nil {
			return fmt.Errorf("follow %s: %w", name, err)
		}
		pos := op.Pos // the operation is gone when it was applied
		acked, err := apply(applier, op)
		if err != nil {
			return fmt.Errorf("follow %s: %w", name, err)
		}
		if acked {
			feed.Acked(pos)
		}
	}
	return nil
}

// apply applies an operation and releases it; acked says that it makes the replica acknowledge its position.
func apply(a *vmdisk.Applier, op *vmdisk.Op) (acked bool, err error) {
	defer op.Release()
	switch op.Kind {
	case vmdisk.OpBegin:
		return false, a.Begin(op.Copy)
	case vmdisk.OpWrite:
		return false, a.Write(op.Off, op.Data)
	case vmdisk.OpZero:
		return false, a.Zero(op.Off, op.Len)
	case vmdisk.OpCheckpoint:
		return true, a.Checkpoint(op.Pos)
	case vmdisk.OpBarrier:
		return true, a.Barrier(op.Pos)
	default:
		return false, fmt.Errorf("operation of kind %d: %w", op.Kind, errors.ErrUnsupported)
	}
}
