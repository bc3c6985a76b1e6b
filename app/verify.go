package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/mend"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
)

// driveError marks what the drive says, so that it is told from a disk that was closed, or isn't what it was.
func driveError(err error) error {
	if errors.Is(err, syscall.EIO) && !errors.Is(err, vmdisk.ErrFailed) && !errors.Is(err, vmdisk.ErrClosed) {
		return fmt.Errorf("%w: %w", verify.ErrUnreadable, err)
	}
	return err
}

// verified lends a disk to the protocol, and lets guests go first.
type verified struct {
	extents
	disk *vmdisk.Store
}

func (x verified) ReadAt(p []byte, off int64) error { return driveError(x.extents.ReadAt(p, off)) }

func (x verified) Extents(off, n int64) ([]verify.Extent, error) {
	out, err := x.extents.Extents(off, n)
	return out, driveError(err)
}

func (x verified) Recorded(off int64) ([16]byte, bool, error) { return x.disk.Recorded(off) }

func (x verified) Position() verify.Position { return verify.Position(x.disk.Position()) }

// verifiedOwner lends an owner's disk.
type verifiedOwner struct{ verified }

func (x verifiedOwner) Look() (verify.Look, error) {
	l, err := x.disk.Look()
	if err != nil {
		return nil, err
	}
	return verifyLook{l}, nil
}

func (x verifiedOwner) Resend(device string, ranges [][2]int64) error {
	return x.disk.Resend(device, ranges)
}

func (x verifiedOwner) Mend(p []byte, off int64) error { return x.disk.Mend(p, off) }

// verifyLook says in the protocol's terms that a copy isn't fed.
type verifyLook struct{ *vmdisk.Look }

func (l verifyLook) Reached(ctx context.Context, device string, off, n int64) (bool, error) {
	there, err := l.Look.Reached(ctx, device, off, n)
	if errors.Is(err, vmdisk.ErrDetached) {
		err = fmt.Errorf("%w: %w", verify.ErrDetached, err)
	}
	return there, err
}

// handleVerify serves an owner that wants to know whether this device's replica is what its disk is. The replica is only read.
func (e *Engine) handleVerify(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := verify.Serve(ctx, s, func(h verify.Hello) (verify.Replica, verify.State, error) {
		v, err := e.replicaFor(s.Peer(), h.Target)
		if err != nil {
			return nil, verify.State{}, err
		}
		disk := v.currentDisk()
		if disk == nil {
			return nil, verify.State{}, errVMClosed
		}
		state := disk.ReplicaState()
		if !state.Complete {
			return nil, diskmirror.State(state), &replica.Refusal{Code: replica.RefuseBusy, Text: "the first copy hasn't ended"}
		}
		return verified{e.politely(ctx, disk), disk}, diskmirror.State(state), nil
	})
	e.ownersStreamEnded(ctx, s, verify.Protocol, err)
}

// verifying is one round, or a part of one.
type verifying struct {
	from      int64
	overwrite bool
	pace      func(ctx context.Context, n int64) error // of reading this device's disk, beside courtesy's; nil: none
	next      func(off int64, r *verify.Result) error
}

// errNotCompared is why a device's copy wasn't compared at all; its text is for the person, after the device's name.
var errNotCompared = errors.New("isn't up to date now")

// verify compares the owner's disk with all copies that are live, and repairs what is proven to be damaged. One runs at a time for a VM. The
// result counts, as far as it goes, beside an error; skipped says which devices' copies weren't compared at all, and why.
func (v *vm) verify(ctx context.Context, w verifying) (r *verify.Result, skipped map[string]error, err error) {
	select {
	case v.verifies <- struct{}{}:
		defer func() { <-v.verifies }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	disk := v.currentDisk()
	if disk == nil {
		return nil, nil, errVMClosed
	}
	lent := v.e.politely(ctx, disk)
	if w.pace != nil {
		polite := lent.wait
		lent.wait = func(n int64) error { return errors.Join(w.pace(ctx, n), polite(n)) }
	}
	o := verify.Options{
		Disk: verifiedOwner{verified{lent, disk}}, Size: disk.Size(), Copies: map[string]verify.Copy{}, Overwrite: w.overwrite, From: w.from, Next: w.next,
		Fetch: v.fetchPiece,
	}
	_, _ = rand.Read(o.Key[:]) // never fails
	skipped = map[string]error{}
	v.mu.Lock()
	feeds := maps.Clone(v.feeds)
	v.mu.Unlock()
	for _, device := range slices.Sorted(maps.Keys(feeds)) {
		s, err := feeds[device].openVerify(ctx, o.Key)
		if err != nil {
			skipped[device] = err
			continue
		}
		defer s.Close()
		o.Copies[device] = s
	}
	r, err = verify.Round(ctx, o)
	return r, skipped, err
}

// openVerify begins to speak with a device whose copy is live.
func (f *feedRun) openVerify(ctx context.Context, key verify.Key) (*verify.Session, error) {
	if !f.progress().live {
		return nil, errNotCompared
	}
	_, target, s, err := f.open(ctx, verify.Protocol)
	if err != nil {
		return nil, err
	}
	x, _, err := verify.Open(ctx, s, verify.Hello{Target: target, Key: key})
	return x, err
}

// errNobodyHas: no device has a piece.
var errNobodyHas = errors.New("no other device has it")

// fetchPiece asks all devices for a piece of the VM's disk by its recorded hash. What it returns has that hash.
func (v *vm) fetchPiece(ctx context.Context, off, n int64, sum [16]byte) ([]byte, error) {
	piece := mend.Piece{VM: v.id, Off: off, Len: int(n), Sum: sum}
	for _, m := range v.e.dir.Members() {
		if m.ID == v.e.host.ID() {
			continue
		}
		b, err := v.e.askPiece(ctx, m.ID, piece)
		if err == nil {
			return b, nil
		}
		v.log.Info("A damaged place couldn't be mended from a copy", "device", m.ID, "off", off, "error", err)
	}
	return nil, errNobodyHas
}
