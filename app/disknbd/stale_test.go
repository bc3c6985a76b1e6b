package disknbd

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/hydrate"
	"tagalong.org/tagalong/vmdisk/nbd"
	"tagalong.org/tagalong/vmdisk/vfs"
)

type ones struct{}

func (ones) Room() hydrate.Room {
	return hydrate.Room{Pull: 8 * hydrate.MaxFetch, Ahead: hydrate.MaxFetch, Piece: hydrate.MaxFetch}
}

func (ones) Fetch(_ context.Context, w hydrate.Want) error {
	for i := range w.P {
		w.P[i] = 1
	}
	return nil
}

// What must be fetched isn't answered by who reads the connection, and without a source the client is made to come back.
func TestStale(t *testing.T) {
	d, err := vmdisk.Create("", vmdisk.ID{1}, 1<<20, vmdisk.Options{FS: vfs.NewMem(), Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	stale := blockset.New(256)
	stale.Add(3, 5)
	if err := d.SetStale(stale.AppendTo(nil), vmdisk.Position{Term: 1, Barrier: 1}); err != nil {
		t.Fatal(err)
	}
	if err := d.Activate(2); err != nil {
		t.Fatal(err)
	}
	b := Backend{Disk: d}
	for _, c := range []struct {
		off, n        int64
		write, prompt bool
	}{
		{0, 3 * 4096, false, true}, {0, 3*4096 + 1, false, false}, {3 * 4096, 4096, true, true}, {3 * 4096, 100, true, false},
		{5 * 4096, 100, true, true},
	} {
		if got := b.Prompt(c.off, c.n, c.write); got != c.prompt {
			t.Errorf("%+v: %v", c, got)
		}
	}
	for _, err := range []error{b.ReadAt(make([]byte, 1), 4*4096), b.WriteAt([]byte{2}, 4*4096, false), b.Cache(0, 1<<20)} {
		if !errors.Is(err, nbd.ErrHangUp) || !errors.Is(err, vmdisk.ErrStale) {
			t.Error(err)
		}
	}
	// Of what nobody makes whole any more the rest can be read.
	known := ReadOnly{Reader: Known{d}}
	if err := known.ReadAt(make([]byte, 4096), 4*4096); !errors.Is(err, syscall.EIO) || errors.Is(err, nbd.ErrHangUp) {
		t.Error(err)
	}
	if err := known.ReadAt(make([]byte, 4096), 5*4096); err != nil {
		t.Error(err)
	}
	if err := d.Hydrate(t.Context(), ones{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Cache(0, 1<<20); err != nil || !b.Prompt(0, 1<<20, false) {
		t.Errorf("a whole disk waits: %v", err)
	}
}
