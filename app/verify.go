package app

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"time"

	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/diskverify"
	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/mend"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
)

// handleVerify serves an owner that wants to know whether this device's replica is what its disk is. The replica is only read.
func (e *Engine) handleVerify(ctx context.Context, s p2p.Stream) {
	defer s.Reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := &struct{ verify.Stream }{s}
	err := verify.Serve(ctx, stream, func(h verify.Hello) (verify.Replica, verify.State, error) {
		v, err := e.replicaFor(s.Peer(), h.Target)
		if err != nil {
			return nil, verify.State{}, err
		}
		if far := e.afar(ctx, s, s.Peer(), v.id); far != nil {
			if err := far.may(); err != nil {
				return nil, verify.State{}, &replica.Refusal{Code: replica.RefuseBusy, Text: err.Error()}
			}
			stream.Stream = far
		}
		disk := v.currentDisk()
		if disk == nil {
			return nil, verify.State{}, errVMClosed
		}
		state := disk.ReplicaState()
		if !state.Complete {
			return nil, diskmirror.State(state), &replica.Refusal{Code: replica.RefuseBusy, Text: "the first copy hasn't ended"}
		}
		may := func() error {
			_, err := e.replicaFor(s.Peer(), h.Target)
			return err
		}
		return diskverify.NewReplica(ctx, disk, e.courtesy.Wait, may), diskmirror.State(state), nil
	})
	e.ownersStreamEnded(ctx, s, verify.Protocol, err)
}

// verifying is one round, or a part of one.
type verifying struct {
	from      int64
	overwrite bool
	pace      func(ctx context.Context, n int64) error // of reading this device's disk, beside courtesy's; nil: none
	next      func(off int64, r *verify.Result) error
	only      []string // whose copies to compare; nil: all
	// withCopies says that nothing is to be done (errNobodyThere) where there are copies, and none can be compared.
	withCopies bool
}

// errNotCompared is why a device's copy wasn't compared at all; its text is for the person, after the device's name.
var errNotCompared = errors.New("isn't up to date now")

// errNobodyThere: there are copies, and none can be compared now.
var errNobodyThere = errors.New("no copy can be compared now")

// forbiddenError is that of a copy at another site, which isn't to be compared now by what the person set about syncing; its text is for the person.
type forbiddenError struct{ sentence string }

func (e forbiddenError) Error() string { return e.sentence }

// verify compares the owner's disk with all copies, and repairs what is proven to be damaged. One runs at a time for a VM. The
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := v.e.courtesy.Wait
	if w.pace != nil {
		wait = func(ctx context.Context, n int64) error {
			return errors.Join(w.pace(ctx, n), v.e.courtesy.Wait(ctx, n))
		}
	}
	heard := func(device string, at vmdisk.Position) {
		v.noteReplica(disk, device, vmdisk.ReplicaState{Disk: disk.ID(), Complete: true, Position: at})
	}
	lent := diskverify.NewOwner(ctx, disk, wait, known{v}.Has, heard)
	o := verify.Options{
		Disk: lent, Size: disk.Size(), Copies: map[string]verify.Copy{}, Overwrite: w.overwrite, From: w.from, Next: w.next, Fetch: v.fetchPiece,
	}
	_, _ = rand.Read(o.Key[:]) // never fails
	skipped = map[string]error{}
	v.mu.Lock()
	feeds := maps.Clone(v.feeds)
	v.mu.Unlock()
	for _, device := range slices.Sorted(maps.Keys(feeds)) {
		if w.only != nil && !slices.Contains(w.only, device) {
			continue
		}
		s, err := feeds[device].openVerify(ctx, disk, o.Key, lent)
		if err != nil {
			skipped[device] = err
			continue
		}
		defer s.Close()
		o.Copies[device] = s
	}
	if w.withCopies && len(o.Copies) == 0 && len(skipped) > 0 {
		return nil, skipped, errNobodyThere
	}
	r, err = verify.Round(ctx, o)
	return r, skipped, err
}

// openVerify begins to speak with a device that has a copy of the disk.
func (f *feedRun) openVerify(ctx context.Context, disk *vmdisk.Store, key verify.Key, lent *diskverify.Owner) (*verify.Session, error) {
	e, at := f.v.e, f.progress().phase
	if at != vmdisk.Live && at != vmdisk.Detached {
		return nil, errNotCompared // it is about to be
	}
	if far := e.afar(ctx, nil, f.device, f.v.id); far != nil {
		if err := far.may(); err != nil {
			return nil, err
		}
	}
	hello := verify.Hello{
		Target: replica.Target{VM: f.v.id, Disk: replica.ID(disk.ID()), Size: disk.Size(), Term: disk.Info().Term}, Key: key,
	}
	s, err := e.host.Open(ctx, f.device, verify.Protocol)
	if errors.Is(err, p2p.ErrProtocol) {
		hello.Version = 1
		s, err = e.host.Open(ctx, f.device, verify.ProtocolV1)
	}
	if err != nil {
		return nil, err
	}
	stream := verify.Stream(s)
	if far := e.afar(ctx, s, f.device, f.v.id); far != nil {
		stream = far
	}
	x, there, err := verify.Open(ctx, stream, hello)
	if err != nil {
		return nil, err
	}
	if at == vmdisk.Detached {
		lent.Heard(f.device, there.Position)
	}
	return x, nil
}

// afar is a stream to a device at another site: what the person set about syncing counts for it.
type afar struct {
	verify.Stream
	ctx    context.Context
	limits *limits.Limits
	vm     string
}

// afar is the stream to a device, if that is at another site.
func (e *Engine) afar(ctx context.Context, s verify.Stream, device, vm string) *afar {
	if !e.fromAfar(device) {
		return nil
	}
	return &afar{s, ctx, e.limits, vm}
}

// may says why nothing may go there now, if so.
func (a *afar) may() error {
	if now := a.limits.Allowance(a.vm); !now.May {
		return forbiddenError{now.Sentence(time.Now())}
	}
	return nil
}

func (a *afar) Write(p []byte) (int, error) {
	if err := errors.Join(a.may(), a.limits.Pace(limits.Up).Wait(a.ctx, int64(len(p)))); err != nil {
		return 0, err
	}
	return a.Stream.Write(p)
}

func (a *afar) Read(p []byte) (int, error) {
	n, err := a.Stream.Read(p)
	if err == nil {
		err = a.limits.Pace(limits.Down).Wait(a.ctx, int64(n))
	}
	return n, err
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
