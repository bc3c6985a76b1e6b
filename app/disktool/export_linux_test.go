package disktool

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/blockset"
)

func TestExportOfAReplica(t *testing.T) {
	dir, out := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "out.raw")
	makeReplica(t, dir)
	req := api.ExportDisk{Disk: dir, File: out, Position: api.Position{Term: 3, Barrier: 5}}
	made, err := ExportClosed(t.Context(), req, quiet, func(int64, int64) {})
	if err != nil || made.Position != req.Position || made.Size != 4<<20 || made.Allocated == 0 || made.Allocated > 64<<10 {
		t.Fatalf("%+v, %v", made, err)
	}
	got, err := os.ReadFile(out)
	if err != nil || len(got) != 4<<20 || !bytes.Equal(got[:4096], bytes.Repeat([]byte{5}, 4096)) || len(bytes.Trim(got[4096:], "\x00")) > 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestExportReplacesOnlyWithForce(t *testing.T) {
	dir, place := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	out := filepath.Join(place, "out.raw")
	makeReplica(t, dir)
	// It appears while the copy is made.
	_, err := ExportClosed(t.Context(), api.ExportDisk{Disk: dir, File: out}, quiet, func(int64, int64) {
		if err := os.WriteFile(out, []byte("mine"), 0o600); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, &api.Error{Code: api.CodeConflict}) {
		t.Errorf("%v", err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "mine" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if left, err := os.ReadDir(place); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if _, err := ExportClosed(t.Context(), api.ExportDisk{Disk: dir, File: out, Force: true}, quiet, func(int64, int64) {}); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(out); err != nil || st.Size() != 4<<20 {
		t.Errorf("%v, %v", st, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ExportClosed(ctx, api.ExportDisk{Disk: dir, File: out, Force: true}, quiet, func(int64, int64) {}); !errors.Is(err, &api.Error{Code: api.CodeCancelled}) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := ExportClosed(t.Context(), api.ExportDisk{Disk: dir, File: filepath.Join(place, "no", "x")}, quiet, func(int64, int64) {}); !errors.Is(err, &api.Error{Code: api.CodeNotFound}) {
		t.Errorf("no directory: %v", err)
	}
}

// broken is a disk of which a part was lost.
type broken struct{ *vmdisk.Store }

func (broken) ReadAt([]byte, int64) error { return vmdisk.ErrCutLost }

func TestAnExportSaysWhatBrokeIt(t *testing.T) {
	dir, place := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	makeReplica(t, dir)
	d, err := vmdisk.Open(dir, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = write(t.Context(), broken{d}, nil, api.ExportDisk{File: filepath.Join(place, "x.raw"), Format: api.DiskRaw}, func(int64, int64) {})
	if !errors.Is(err, vmdisk.ErrCutLost) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(place); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// While a disk is being fetched, what it was before can be exported, and nothing else.
func TestExportOfThePast(t *testing.T) {
	dir, out := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "out.raw")
	makeReplica(t, dir)
	d, err := vmdisk.Open(dir, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stale := blockset.New(4 << 20 / 4096)
	stale.Add(0, 8)
	if err := errors.Join(d.SetStale(stale.AppendTo(nil), vmdisk.Position{Term: 3, Barrier: 9}), d.Close()); err != nil {
		t.Fatal(err)
	}
	for pos, code := range map[api.Position]api.Code{{}: api.CodeConflict, {Term: 3, Barrier: 9}: api.CodeNotFound, {Term: 3, Barrier: 4}: api.CodeNotFound} {
		_, err := ExportClosed(t.Context(), api.ExportDisk{Disk: dir, File: out, Position: pos}, quiet, func(int64, int64) {})
		if !errors.Is(err, &api.Error{Code: code}) {
			t.Errorf("%v: %v", pos, err)
		}
	}
	req := api.ExportDisk{Disk: dir, File: out, Position: api.Position{Term: 3, Barrier: 5}}
	made, err := ExportClosed(t.Context(), req, quiet, func(int64, int64) {})
	if err != nil || made.Position != req.Position {
		t.Fatalf("%+v, %v", made, err)
	}
	got, err := os.ReadFile(out)
	if err != nil || len(got) != 4<<20 || !bytes.Equal(got[:4096], bytes.Repeat([]byte{5}, 4096)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
