// Package diskpush lends disks to the push protocol: a cut of a disk that is whole as its source, a replica's applier as its sink; and it finds out
// what a receiver lacks of a cut, as exactly as that is known here.
//
// What is never left out: a block that might differ. Lacks says nothing unless the receiver is at a position of the VM's history, and it knows
// what was written since that very one.
//
// It closes nothing and decides nothing: whether a push may be, and the ends of disks and streams, are its caller's, the engine.
//
// To test: go test ./app/diskpush ; with power cuts: go test -run TestPush ./app ; between fleets: go test ./app/fleetsim
package diskpush

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
)

// Told is what an owner told the fleet of a replica: at Position it differs from the disk at Of at most in the blocks of Runs (the first of
// a run, and their count).
type Told struct {
	Position, Of vmdisk.Position
	Runs         iter.Seq2[uint64, uint64]
}

// State is what a receiver said of its replica of disk, in the disk's terms.
func State(disk *vmdisk.Store, s push.State) vmdisk.ReplicaState {
	return vmdisk.ReplicaState{
		Disk: disk.ID(), Complete: s.Complete, Position: vmdisk.Position(s.Position), Copy: s.Copy, Checkpoint: vmdisk.Position(s.Checkpoint),
	}
}

// History is what the engine knows of a VM beside its disk.
type History interface {
	// Has says whether the VM's history, of which there is one only, has that position. Numbers alone don't tell: after a takeover the side that was
	// given up may have counted on, too.
	Has(vmdisk.Position) bool
	// Told is what the owner told of a peer's replica; it is false if nothing is known that holds for this history.
	Told(peer string) (Told, bool)
}

// Lacks is which blocks of the cut of disk the replica r of a peer may lack; nil is all of them. exact says that they are those that were written
// since.
func Lacks(disk *vmdisk.Store, cut *vmdisk.Cut, peer string, r vmdisk.ReplicaState, h History) (set *blockset.Set, exact bool) {
	if !r.Complete || !h.Has(r.Position) {
		return nil, false
	}
	// An owner's own word comes first: what is to be repaired there is in it too.
	if lag, ok := disk.Lag(peer); ok {
		defer lag.Release()
		if lag.Acked == r.Position {
			set = blocks(lag.Runs())
			if !lag.Guessed {
				return set, true
			}
		}
	}
	if since, ok := cut.Since(r.Position); ok {
		return since, true
	}
	if set != nil {
		return set, false
	}
	known, ok := h.Told(peer)
	if !ok || known.Position != r.Position || known.Of.Compare(cut.Position()) > 0 {
		return nil, false
	}
	set = blocks(known.Runs)
	if known.Of != cut.Position() {
		more, ok := cut.Since(known.Of)
		if !ok {
			return nil, false
		}
		set.Or(more)
	}
	return set, true
}

func blocks(runs iter.Seq2[uint64, uint64]) *blockset.Set {
	set := blockset.New(blockset.Most)
	for first, n := range runs {
		set.Add(int64(first), int64(first+n))
	}
	return set
}

// ErrBeyond says that a disk has content beyond the size that it is said to have.
var ErrBeyond = errors.New("diskpush: the disk has content beyond its end")

// Within is the size at which a cut is pushed where the fleet has heard of size bytes: that, as what a side that was given up may have left beyond it is zeros.
// Where it isn't, the word of the disk's growth is still on its way: pushed without that content, a replica wouldn't be what its position says. Errors:
// ErrBeyond, and those of reading.
func Within(cut *vmdisk.Cut, size int64) (int64, error) {
	const piece = 1 << 20
	var buf []byte
	for off := size; off < cut.Size(); {
		extents, err := cut.Extents(off, cut.Size()-off)
		if err != nil {
			return 0, err
		}
		for _, e := range extents {
			for end := off + e.Len; off < end; {
				n := end - off
				if !e.Hole {
					n = min(n, piece)
					buf = slices.Grow(buf[:0], int(n))[:n]
					if err := cut.ReadAt(buf, off); err != nil {
						return 0, err
					}
					if slices.ContainsFunc(buf, func(b byte) bool { return b != 0 }) {
						return 0, fmt.Errorf("at %d of %d bytes, %d are known: %w", off, cut.Size(), size, ErrBeyond)
					}
				}
				off += n
			}
		}
	}
	return min(size, cut.Size()), nil
}

// Work is what there is to send of the first size bytes of a cut, beyond which it is zeros, of which the receiver lacks the blocks of lacks (nil: all) and has held what holds says. The cut keeps nothing
// else from then on.
func Work(disk *vmdisk.Store, cut *vmdisk.Cut, size int64, lacks *blockset.Set, exact bool, holds iter.Seq2[int64, int64]) push.Work {
	if lacks != nil {
		want := lacks.Clone()
		for off, n := range holds {
			want.Add(off/push.Block, (off+n)/push.Block)
		}
		cut.Want(want)
	}
	return push.Work{Source: source{cut, lacks, size}, Exact: exact, Heat: heat{disk}}
}

type source struct {
	*vmdisk.Cut
	lacks *blockset.Set
	size  int64
}

// Next implements push.Source.
func (s source) Next(off int64) (from, n int64) {
	if s.lacks == nil {
		return off, max(0, s.size-off)
	}
	// What is lacking beyond the cut came after it.
	a := s.lacks.Next(off/push.Block, true)
	from = min(a*push.Block, s.size)
	return from, min(s.lacks.Next(a, false)*push.Block, s.size) - from
}

// Extents implements push.Source.
func (s source) Extents(off, n int64) ([]push.Extent, error) {
	there, err := s.Cut.Extents(off, n)
	out := make([]push.Extent, len(there))
	for i, e := range there {
		out[i] = push.Extent(e)
	}
	return out, err
}

// Done implements push.Source.
func (s source) Done(off, n int64) { s.Release(off, n) }

type heat struct{ disk *vmdisk.Store }

// Heat implements push.Heat.
func (h heat) Heat(region int64) uint64 {
	off := region * push.Region
	return h.disk.Heat(off, min(push.Region, h.disk.Size()-off))
}

// Sink is a replica. May, if not nil, is asked before what came becomes the disk: its error ends the push, and the replica stays what it was. Reached,
// if not nil, is called when the replica is the cut, durably; Seen, if not nil, with what came, whole blocks at off.
type Sink struct {
	*vmdisk.Applier
	May     func() error
	Reached func()
	Seen    func(off int64, p []byte)
	held    *blockset.Set
}

var _ push.Sink = (*Sink)(nil)

// NewSink lends the applier, of which nothing was begun yet.
func NewSink(a *vmdisk.Applier) (*Sink, error) {
	held, err := a.Copied()
	return &Sink{Applier: a, held: held}, err
}

// Held implements push.Sink.
func (s *Sink) Held() iter.Seq2[int64, int64] {
	return func(yield func(int64, int64) bool) {
		for a, b := range s.held.Runs() {
			if !yield(a*push.Block, (b-a)*push.Block) {
				return
			}
		}
	}
}

// Write implements push.Sink.
func (s *Sink) Write(off int64, p []byte) error {
	err := s.Applier.Write(off, p)
	if err == nil && s.Seen != nil {
		s.Seen(off, p)
	}
	return err
}

// Checkpoint implements push.Sink.
func (s *Sink) Checkpoint(p push.Position) error { return s.Applier.Checkpoint(vmdisk.Position(p)) }

// Barrier implements push.Sink.
func (s *Sink) Barrier(p push.Position) error {
	if s.May != nil {
		if err := s.May(); err != nil {
			return err
		}
	}
	err := s.Applier.Barrier(vmdisk.Position(p))
	if err == nil && s.Reached != nil {
		s.Reached()
	}
	return err
}
