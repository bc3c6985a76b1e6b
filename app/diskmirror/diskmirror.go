// Package diskmirror lends disks to the mirror protocol: an owner's feed as its source, a replica's applier as its sink.
//
// It guarantees that operations and positions reach the other side as they are, that each operation is released once, and that a feed that
// was closed ends the stream in order.
//
// It keeps nothing, closes nothing and decides nothing: who has the disk and the stream sees to their ends. Tested with app and by
// build/bench, which both mirror through it.
package diskmirror

import (
	"context"
	"errors"
	"io"

	"tagalong.org/tagalong/p2p/mirror"
	"tagalong.org/tagalong/vmdisk"
)

// Source is a feed. Heard, if not nil, is called after each acknowledgement; it must not block.
type Source struct {
	Feed  *vmdisk.Feed
	Heard func()
}

// Sink is an applier. Reached, if not nil, is called when the replica is at another position, durably.
type Sink struct {
	Applier *vmdisk.Applier
	Reached func()
}

var (
	_ mirror.Source = Source{}
	_ mirror.Sink   = Sink{}
	_ mirror.Waiter = Sink{}
)

// kinds are the disk's operations in the protocol's terms.
var kinds = map[vmdisk.OpKind]mirror.Kind{
	vmdisk.OpWrite: mirror.Write, vmdisk.OpZero: mirror.Zero, vmdisk.OpBarrier: mirror.Barrier,
	vmdisk.OpCheckpoint: mirror.Checkpoint, vmdisk.OpBegin: mirror.Begin,
}

// Next implements mirror.Source.
func (s Source) Next(ctx context.Context) (mirror.Op, error) {
	op, err := s.Feed.Next(ctx)
	if errors.Is(err, vmdisk.ErrClosed) {
		return mirror.Op{}, io.EOF
	}
	if err != nil {
		return mirror.Op{}, err
	}
	return mirror.Op{Kind: kinds[op.Kind], Off: op.Off, Len: op.Len, Data: op.Data, Pos: mirror.Position(op.Pos), Copy: op.Copy, Done: op.Release}, nil
}

// Acked implements mirror.Source.
func (s Source) Acked(p mirror.Position) {
	s.Feed.Acked(vmdisk.Position(p))
	if s.Heard != nil {
		s.Heard()
	}
}

// Await implements mirror.Waiter.
func (s Sink) Await(ctx context.Context) error { return s.Applier.Await(ctx) }

// Begin implements mirror.Sink.
func (s Sink) Begin(copy [16]byte) error { return s.Applier.Begin(copy) }

// Write implements mirror.Sink.
func (s Sink) Write(off int64, p []byte) error { return s.Applier.Write(off, p) }

// Zero implements mirror.Sink.
func (s Sink) Zero(off, n int64) error { return s.Applier.Zero(off, n) }

// Checkpoint implements mirror.Sink.
func (s Sink) Checkpoint(p mirror.Position) error { return s.Applier.Checkpoint(vmdisk.Position(p)) }

// Barrier implements mirror.Sink.
func (s Sink) Barrier(p mirror.Position) error {
	err := s.Applier.Barrier(vmdisk.Position(p))
	if err == nil && s.Reached != nil {
		s.Reached()
	}
	return err
}

// ReplicaState is what a replica of disk said of itself, in the disk's terms, after a hello that named that size of the disk: it is no smaller.
func ReplicaState(disk *vmdisk.Store, size int64, s mirror.State) vmdisk.ReplicaState {
	return vmdisk.ReplicaState{
		Disk: disk.ID(), Size: size, Complete: s.Complete, Position: vmdisk.Position(s.Position), Copy: s.Copy, Checkpoint: vmdisk.Position(s.Checkpoint),
	}
}

// State is what a replica says of itself, in the protocol's terms.
func State(s vmdisk.ReplicaState) mirror.State {
	return mirror.State{
		Complete: s.Complete, Position: mirror.Position(s.Position), Copy: s.Copy, Checkpoint: mirror.Position(s.Checkpoint),
	}
}
