// Package diskverify lends disks to the verify protocol: an owner's disk, of which it tells where copies stand that nothing feeds, and a replica,
// which is held at one position for as long as a leaf of it is read.
//
// What is guaranteed is what vmdisk guarantees of a Look, a Standing, a Cut and a Patch: a leaf is compared only where both sides have it at one
// position, and a replica's content is replaced at the very position that the content is of, if the replica's owner may still do that.
//
// It decides nothing and closes no disk: that is its caller's, the engine.
//
// To test: go test ./app/diskverify ; between engines: go test -run 'Verify|Verification' ./app
package diskverify

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
)

// Wait returns when n more bytes may be read; nil doesn't wait.
type Wait func(ctx context.Context, n int64) error

// lent reads something, at a pace.
type lent struct {
	ctx  context.Context // of the stream, or the round, that it is lent to
	wait Wait
	vmdisk.Reader
}

func (x lent) ReadAt(p []byte, off int64) error {
	if x.wait != nil {
		if err := x.wait(x.ctx, int64(len(p))); err != nil {
			return err
		}
	}
	return driveError(x.Reader.ReadAt(p, off))
}

func (x lent) Extents(off, n int64) ([]verify.Extent, error) {
	there, err := x.Reader.Extents(off, n)
	out := make([]verify.Extent, len(there))
	for i, e := range there {
		out[i] = verify.Extent(e)
	}
	return out, driveError(err)
}

// driveError marks what the drive says, so that it is told from a disk that was closed, or isn't what it was.
func driveError(err error) error {
	if errors.Is(err, syscall.EIO) && !errors.Is(err, vmdisk.ErrFailed) && !errors.Is(err, vmdisk.ErrClosed) {
		return fmt.Errorf("%w: %w", verify.ErrUnreadable, err)
	}
	return err
}

// Replica is a replica's disk, lent until ctx ends.
type Replica struct {
	lent
	disk *vmdisk.Store
	may  func() error
}

var _ verify.Replica = (*Replica)(nil)

// NewReplica lends a replica. may is asked before it is changed: its error keeps it as it is.
func NewReplica(ctx context.Context, disk *vmdisk.Store, wait Wait, may func() error) *Replica {
	return &Replica{lent{ctx, wait, disk}, disk, may}
}

// Recorded implements verify.Recorder.
func (x *Replica) Recorded(off int64) ([16]byte, bool, error) { return x.disk.Recorded(off) }

// Position implements verify.Replica.
func (x *Replica) Position() verify.Position { return verify.Position(x.disk.Position()) }

// Pin implements verify.Replica.
func (x *Replica) Pin(ctx context.Context) (verify.Pinned, error) {
	cut, err := x.disk.Cut(ctx)
	if err != nil {
		return nil, err
	}
	return pinned{lent{ctx, x.wait, cut}, cut}, nil
}

type pinned struct {
	lent
	cut *vmdisk.Cut
}

func (x pinned) Position() verify.Position { return verify.Position(x.cut.Position()) }
func (x pinned) Close() error              { return x.cut.Close() }

// Patch implements verify.Replica.
func (x *Replica) Patch(p verify.Patch) error {
	if err := x.may(); err != nil {
		return err
	}
	blocks := ^uint16(p.Without)
	if n := len(p.Content) / vmdisk.Block; n < 16 {
		blocks &= 1<<n - 1
	}
	err := x.disk.Patch(vmdisk.Patch{
		At: vmdisk.Position(p.At), Off: p.Leaf * vmdisk.MendUnit, Content: p.Content, Blocks: blocks, Doubted: p.Doubted,
	})
	if errors.Is(err, vmdisk.ErrOldPosition) || errors.Is(err, vmdisk.ErrNotRecorded) {
		err = fmt.Errorf("%w: %w", verify.ErrKept, err)
	}
	return err
}

// Owner is an owner's disk, lent for one round.
type Owner struct {
	lent
	disk  *vmdisk.Store
	has   func(vmdisk.Position) bool
	heard func(device string, at vmdisk.Position)
}

var _ verify.Disk = (*Owner)(nil)

// NewOwner lends an owner's disk. has says whether the VM's history has a position: what is known of a copy that stands elsewhere doesn't count. heard is told
// where a copy says that it is, of those that nothing feeds.
func NewOwner(ctx context.Context, disk *vmdisk.Store, wait Wait, has func(vmdisk.Position) bool, heard func(device string, at vmdisk.Position)) *Owner {
	return &Owner{lent{ctx, wait, here{disk}}, disk, has, heard}
}

// here reads a disk without waiting for what is stale.
type here struct{ *vmdisk.Store }

func (x here) ReadAt(p []byte, off int64) error { return x.ReadHere(p, off) }

// Recorded implements verify.Recorder.
func (x *Owner) Recorded(off int64) ([16]byte, bool, error) { return x.disk.Recorded(off) }

// Look implements verify.Disk.
func (x *Owner) Look() (verify.Look, error) {
	l, err := x.disk.Look()
	if err != nil {
		return nil, err
	}
	return look{l}, nil
}

// look says in the protocol's terms that a copy isn't fed.
type look struct{ *vmdisk.Look }

func (l look) Reached(ctx context.Context, device string, off, n int64) (bool, error) {
	there, err := l.Look.Reached(ctx, device, off, n)
	return there, detached(err)
}

func detached(err error) error {
	if errors.Is(err, vmdisk.ErrDetached) {
		err = fmt.Errorf("%w: %w", verify.ErrDetached, err)
	}
	return err
}

// Lag implements verify.Disk.
func (x *Owner) Lag(device string) (verify.Lag, error) {
	s, err := x.disk.Standing(device)
	switch {
	case errors.Is(err, vmdisk.ErrAttached):
		return nil, nil
	case err != nil:
		return nil, detached(err)
	case !x.has(s.Position):
		s.Close()
		return nil, fmt.Errorf("the VM's history doesn't have %s: %w", s.Position, verify.ErrDetached)
	}
	return lag{s}, nil
}

type lag struct{ s *vmdisk.Standing }

func (l lag) Position() verify.Position { return verify.Position(l.s.Position) }

func (l lag) Lacks(leaf int64) (m verify.Mask) {
	for k := range verify.LeafSize / vmdisk.Block {
		if l.s.Lacks(leaf*verify.LeafSize/vmdisk.Block + int64(k)) {
			m |= 1 << k
		}
	}
	return m
}

func (l lag) Close() { l.s.Close() }

// Heard implements verify.Disk.
func (x *Owner) Heard(device string, at verify.Position) {
	if pos := vmdisk.Position(at); x.has(pos) {
		x.heard(device, pos)
	}
}

// Resend implements verify.Disk.
func (x *Owner) Resend(device string, ranges [][2]int64) error { return x.disk.Resend(device, ranges) }

// Mend implements verify.Disk.
func (x *Owner) Mend(p []byte, off int64) error { return x.disk.Mend(p, off) }
