package savedmemory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const room = 9 << 20

func volume(t *testing.T) *vmdisk.Store {
	t.Helper()
	d, err := vmdisk.Create("", vmdisk.ID{1}, room, vmdisk.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Activate(1); err != nil {
		t.Fatal(err)
	}
	return d
}

// memory is as much noise as zeros, and doesn't end at a chunk.
func memory() []byte {
	p := make([]byte, 5<<19+123)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p[:len(p)/2])
	return p
}

func write(p []byte) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		_, err := w.Write(p)
		return err
	}
}

func saved(t *testing.T, d vmdisk.Disk) Header {
	t.Helper()
	h, err := Save(t.Context(), Saving{Volume: d, Header: Header{Config: strings.Repeat("c", 64), Accel: "tcg", Version: "10.0.2", At: time.Unix(1, 0).UTC()}, Write: write(memory())})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func load(t *testing.T, d vmdisk.Reader, h Header) ([]byte, error) {
	var got []byte
	err := Load(t.Context(), Loading{Volume: d, Header: h, Read: func(_ context.Context, r io.Reader) (err error) {
		got, err = io.ReadAll(r)
		return err
	}})
	return got, err
}

func TestSavedMemoryComesBack(t *testing.T) {
	d := volume(t)
	if _, err := Read(d); !errors.Is(err, ErrNone) {
		t.Fatal(err)
	}
	want := saved(t, d)
	h, err := Read(d)
	if err != nil || h.Stored != want.Stored || h.Raw != int64(len(memory())) || h.Config != want.Config || h.Accel != "tcg" || !h.At.Equal(time.Unix(1, 0)) {
		t.Fatalf("%+v, %v", h, err)
	}
	if h.Stored >= h.Raw*2/3 {
		t.Errorf("zeros take space: %d of %d", h.Stored, h.Raw)
	}
	if got, err := load(t, d, h); err != nil || !bytes.Equal(got, memory()) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if d.Info().Unflushed {
		t.Error("it isn't durable")
	}
	if err := Clear(d); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(d); !errors.Is(err, ErrNone) || d.Info().Unflushed {
		t.Error(err)
	}
	if err := Discard(d); err != nil {
		t.Fatal(err)
	}
	if list, err := d.Extents(0, room); err != nil || len(list) != 1 || !list[0].Hole {
		t.Errorf("%+v, %v", list, err)
	}
}

// order notes what is done to a disk.
type order struct {
	vmdisk.Disk
	did []string
	// fail is the number of the call that fails.
	fail int
}

var errFull = errors.New("full")

func (o *order) step(what string) error {
	o.did = append(o.did, what)
	if len(o.did) == o.fail {
		return errFull
	}
	return nil
}

func (o *order) WriteAt(p []byte, off int64, fua bool) error {
	what := "data"
	if off == 0 {
		what = "header"
	}
	if err := o.step(what); err != nil {
		return err
	}
	return o.Disk.WriteAt(p, off, fua)
}

func (o *order) Zero(off, n int64, mayTrim, fua bool) error {
	if err := o.step("clear"); err != nil {
		return err
	}
	return o.Disk.Zero(off, n, mayTrim, fua)
}

func (o *order) Flush() error {
	if err := o.step("flush"); err != nil {
		return err
	}
	return o.Disk.Flush()
}

// TestTheHeaderComesLast: the order of writes is all that makes memory and disks fit each other. Whatever call fails, no header is left that could be read.
func TestTheHeaderComesLast(t *testing.T) {
	d := volume(t)
	saved(t, d)
	o := &order{Disk: d}
	saved(t, o)
	want := []string{"clear", "flush", "data", "data", "flush", "header", "flush"}
	if len(o.did) != len(want) {
		t.Fatal(o.did)
	}
	for i := range want {
		if o.did[i] != want[i] {
			t.Fatal(o.did)
		}
	}
	for fail := 1; fail <= len(want); fail++ {
		d := volume(t)
		o := &order{Disk: d, fail: fail}
		if _, err := Save(t.Context(), Saving{Volume: o, Write: write(memory())}); !errors.Is(err, errFull) {
			t.Errorf("call %d fails: %v", fail, err)
		}
		if _, err := Read(d); !errors.Is(err, ErrNone) {
			t.Errorf("after call %d failed: %v", fail, err)
		}
	}
}

func TestASaveThatEndsEarlyLeavesNothing(t *testing.T) {
	d := volume(t)
	ctx, cancel := context.WithCancel(t.Context())
	noise := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	_, err := Save(ctx, Saving{Volume: d, Write: func(_ context.Context, w io.Writer) error {
		for range 3 {
			if _, err := w.Write(noise); err != nil {
				return err
			}
			cancel()
		}
		return nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Read(d); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	_, err = Save(t.Context(), Saving{Volume: d, Write: func(_ context.Context, w io.Writer) error {
		for range 6 {
			if _, err := w.Write(noise); err != nil {
				return err
			}
			noise[0]++
			_, _ = rand.NewChaCha8([32]byte{noise[0]}).Read(noise)
		}
		return nil
	}})
	if !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := Read(d); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
}

// TestDamageIsSeen flips single bits of all that is stored, of the header too.
func TestDamageIsSeen(t *testing.T) {
	d := volume(t)
	want := saved(t, d)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 24 {
		off := rnd.Int64N(64)
		if i%2 == 0 {
			off = dataAt + rnd.Int64N(want.Stored)
		}
		b := make([]byte, 1)
		if err := d.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1 << rnd.IntN(8)
		if err := d.WriteAt(b, off, false); err != nil {
			t.Fatal(err)
		}
		h, err := Read(d)
		if err == nil {
			_, err = load(t, d, h)
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("a bit at %d: %v", off, err)
		}
		saved(t, d)
	}
	h, err := Read(d)
	if err != nil {
		t.Fatal(err)
	}
	// A hypervisor that doesn't take all in hasn't got it.
	err = Load(t.Context(), Loading{Volume: d, Header: h, Read: func(_ context.Context, r io.Reader) error {
		_, err := io.ReadFull(r, make([]byte, 1000))
		return err
	}})
	if !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func FuzzHeader(f *testing.F) {
	b, err := Header{Stored: 1, Raw: 1, Hash: make([]byte, hashSize)}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decode(append(b, make([]byte, headerSize)...)[:headerSize], room)
		if err == nil && (h.Stored <= 0 || h.Stored > room-dataAt) {
			t.Fatalf("%+v", h)
		}
	})
}
