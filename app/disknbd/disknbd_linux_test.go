package disknbd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// disk is an active disk of 1 MiB with 64 KiB of data at 64 KiB.
func disk(t *testing.T) *vmdisk.Store {
	t.Helper()
	d, err := vmdisk.Create(filepath.Join(t.TempDir(), "disk"), vmdisk.NewID(), 1<<20, vmdisk.Options{})
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
	if err := d.WriteAt([]byte(strings.Repeat("x", 64<<10)), 64<<10, true); err != nil {
		t.Fatal(err)
	}
	return d
}

// serve returns the URI of a server for b.
func serve(t *testing.T, b nbd.Backend) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := nbd.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&nbd.Server{Backend: b, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return "nbd+unix:///?socket=" + socket
}

// tools are the programs of other people that the exports are held against.
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v: run build/deps.sh test", err)
	}
	return string(out), err
}

// info is what nbdinfo says of the only export.
func info(t *testing.T, uri string) map[string]any {
	t.Helper()
	out, err := tool(t, "nbdinfo", "--json", uri)
	if err != nil {
		t.Fatal(out)
	}
	var i struct{ Exports []map[string]any }
	if err := json.Unmarshal([]byte(out), &i); err != nil || len(i.Exports) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return i.Exports[0]
}

const layout = "[{0 65536 3} {65536 65536 0} {131072 917504 3}]"

func extents(t *testing.T, uri string) string {
	t.Helper()
	out, err := tool(t, "nbdinfo", "--map", "--json", uri)
	if err != nil {
		t.Fatal(out)
	}
	var list []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(list)
}

func TestBackend(t *testing.T) {
	uri := serve(t, Backend{Disk: disk(t)})
	if i := info(t, uri); i["is_read_only"] != false || i["can_trim"] != true || i["can_zero"] != true {
		t.Errorf("%v", i)
	}
	if got := extents(t, uri); got != layout {
		t.Errorf("%s, want %s", got, layout)
	}
	if out, err := tool(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 4k", "-c", "discard 64k 64k", "-c", "read -P 7 0 4k", "-c", "read -P 0 64k 64k", uri); err != nil {
		t.Error(out)
	}
}

func TestReadOnly(t *testing.T) {
	d := disk(t)
	uri := serve(t, ReadOnly{d})
	if i := info(t, uri); i["is_read_only"] != true || i["can_trim"] != false || i["can_zero"] != false {
		t.Errorf("%v", i)
	}
	if got := extents(t, uri); got != layout {
		t.Errorf("%s, want %s", got, layout)
	}
	if out, err := tool(t, "qemu-io", "-r", "-f", "raw", "-c", "read -P 120 64k 64k", uri); err != nil {
		t.Error(out)
	}
	if out, err := tool(t, "qemu-io", "-f", "raw", "-c", "write -P 7 0 4k", uri); err == nil {
		t.Errorf("it was written: %s", out)
	}
	// A client that doesn't listen is refused too: nobody is asked but the backend.
	for what, err := range map[string]error{
		"write": ReadOnly{d}.WriteAt(make([]byte, 4096), 0, false), "trim": ReadOnly{d}.Trim(0, 4096, false), "zero": ReadOnly{d}.Zero(0, 4096, true, false),
	} {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPassingTroubleHangsUp(t *testing.T) {
	d := disk(t)
	b := Backend{Disk: d}
	p := make([]byte, 4096)
	if err := d.Fence(); err != nil {
		t.Fatal(err)
	}
	if err := b.WriteAt(p, 0, false); !errors.Is(err, nbd.ErrHangUp) || !errors.Is(err, vmdisk.ErrFenced) {
		t.Errorf("fenced: %v", err)
	}
	if err := b.ReadAt(p, 0); err != nil {
		t.Errorf("reading a fenced disk: %v", err)
	}
	if err := b.ReadAt(p, 1<<20); !errors.Is(err, vmdisk.ErrRange) || errors.Is(err, nbd.ErrHangUp) {
		t.Errorf("beyond the end: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"read": b.ReadAt(p, 0), "trim": b.Trim(0, 4096, false), "zero": b.Zero(0, 4096, true, false),
		"read only": ReadOnly{d}.ReadAt(p, 0),
	} {
		if !errors.Is(err, nbd.ErrHangUp) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.BlockStatus(0, 4096); !errors.Is(err, nbd.ErrHangUp) {
		t.Errorf("status: %v", err)
	}
}
