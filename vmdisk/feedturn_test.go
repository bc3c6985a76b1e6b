package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// heldUp is a Turns of which nothing may be read while rest isn't 0.
type heldUp struct {
	rest        atomic.Int64
	asked, read atomic.Int64
}

func (h *heldUp) Delay() time.Duration { h.asked.Add(1); return time.Duration(h.rest.Load()) }

func (h *heldUp) Took(n int64, d time.Duration) {
	if d < 0 {
		n = -1 << 62
	}
	h.read.Add(n)
}

// politePair is an owner of a full disk that is held up, a replica that has nothing, and the feed between them.
func politePair(t *testing.T, size int64) (d, r *Store, f *Feed, a *Applier, h *heldUp) {
	t.Helper()
	h = &heldUp{}
	o := quiet(vfs.NewMem())
	o.Copy = h
	d = newDisk(t, size, o)
	must(t, d.Activate(1))
	for off := int64(0); off < size; off += Block {
		must(t, d.WriteAt(blockOf(byte(1+off/Block%250)), off, false))
	}
	must(t, d.Flush())
	r = newReplica(t, size, quiet(vfs.NewMem()))
	a, err := r.Apply()
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	f, err = d.Attach("r", a.State())
	must(t, err)
	t.Cleanup(f.Close)
	return d, r, f, a, h
}

// carry brings operations to the replica until ctx ends, and returns why it ended.
func carry(ctx context.Context, f *Feed, a *Applier) error {
	for {
		op, err := f.Next(ctx)
		if err != nil {
			return err
		}
		ack, err := feedTo(a, op)
		if err != nil {
			return err
		}
		f.Acked(ack)
	}
}

// A first copy rests while it is told to, and goes on when it isn't any more; what it read it tells.
func TestACopyLetsOthersGoFirst(t *testing.T) {
	const size = 2 << 20
	d, r, f, a, h := politePair(t, size)
	h.rest.Store(int64(time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- carry(ctx, f, a) }()
	for h.asked.Load() < 20 {
		time.Sleep(time.Millisecond)
	}
	if n := h.read.Load(); n != 0 {
		t.Errorf("%d bytes were read of a disk that others need", n)
	}
	h.rest.Store(0)
	for f.Progress().Phase != Live {
		time.Sleep(time.Millisecond)
	}
	if n := h.read.Load(); n != size {
		t.Errorf("it was told that %d bytes were read of %d", n, size)
	}
	// Who is live gets every write, whatever others need.
	h.rest.Store(int64(time.Hour))
	asked := h.asked.Load()
	for x := range int64(16) {
		must(t, d.WriteAt(blockOf(251), x*5*Block, false))
	}
	must(t, d.Flush())
	for !f.Progress().Complete {
		time.Sleep(time.Millisecond)
	}
	if n := h.asked.Load(); n != asked {
		t.Errorf("a live feed asked %d times", n-asked)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, d), content(t, r)) {
		t.Error("the replica differs")
	}
}

// Who waits until a peer has everything isn't held up: a hand-off, for which the guest stands still.
func TestWhoIsWaitedForIsNotHeldUp(t *testing.T) {
	d, r, f, a, h := politePair(t, 2<<20)
	h.rest.Store(int64(time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- carry(ctx, f, a) }()
	for h.asked.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	must(t, d.Fence())
	if _, err := d.Drain(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	if !bytes.Equal(content(t, d), content(t, r)) {
		t.Error("the replica differs")
	}
}

// Who rests ends with the feed, or with the context.
func TestARestEnds(t *testing.T) {
	for how, end := range map[string]func(f *Feed, cancel func()) error{
		"closed":   func(f *Feed, _ func()) error { f.Close(); return ErrClosed },
		"canceled": func(_ *Feed, cancel func()) error { cancel(); return context.Canceled },
	} {
		t.Run(how, func(t *testing.T) {
			_, _, f, a, h := politePair(t, 1<<20)
			h.rest.Store(int64(time.Hour))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- carry(ctx, f, a) }()
			for h.asked.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			want := end(f, cancel)
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
}

// What comes from a cut, for a peer that a guest outruns, lets others go first, too.
func TestACutLetsOthersGoFirst(t *testing.T) {
	b, _, _ := overwhelmed(t, 1)
	h := &heldUp{}
	b.owner.o.Copy = h
	h.rest.Store(int64(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- carry(ctx, b.f, b.a) }()
	for h.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
	if n := h.read.Load(); n != 0 {
		t.Errorf("%d bytes were read", n)
	}
	h.rest.Store(0)
	must(t, b.pump(-1))
	if h.read.Load() == 0 {
		t.Error("what was read of the cut isn't told")
	}
	b.isNew("at rest")
}
