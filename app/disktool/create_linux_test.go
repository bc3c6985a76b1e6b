package disktool

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
)

// image makes a qcow2 of 8 MiB with 1 MiB of data at 1 MiB, and the same as raw.
func image(t *testing.T) (qcow2, raw string) {
	t.Helper()
	qcow2, raw = filepath.Join(t.TempDir(), "image.qcow2"), filepath.Join(t.TempDir(), "image.raw")
	for _, args := range [][]string{
		{"qemu-img", "create", "-f", "qcow2", qcow2, "8M"},
		{"qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 1M", qcow2},
		{"qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, raw},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	return qcow2, raw
}

func TestCreateFromImages(t *testing.T) {
	qcow2, raw := image(t)
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	for from, role := range map[string]api.DiskRole{qcow2: api.DiskOwner, raw: api.DiskNew} {
		dir := filepath.Join(t.TempDir(), "not yet", "disk")
		var last int64
		info, err := Create(t.Context(), CreateOptions{Dir: dir, From: from, Log: quiet, Progress: func(done, total int64) {
			if last = done; total != 8<<20 {
				t.Errorf("%d of %d", done, total)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != 8<<20 || info.Role != role || info.Allocated > 2<<20 || last != 8<<20 {
			t.Errorf("%s: %+v, told %d", from, info, last)
		}
		got, err := os.ReadFile(filepath.Join(dir, "base.raw"))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: the content differs (%v)", from, err)
		}
		if again, err := Info(dir, quiet); err != nil || again.ID != info.ID || again.Role != role {
			t.Errorf("%s: %+v, %v", from, again, err)
		}
	}
}

func TestAFailedCreateLeavesNothing(t *testing.T) {
	qcow2, raw := image(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "disk")
	for name, from := range map[string]string{"qcow2": qcow2, "raw": raw} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Create(ctx, CreateOptions{Dir: dir, From: from, Log: quiet, Progress: func(int64, int64) { cancel() }})
		cancel()
		if !errors.Is(err, &api.Error{Code: api.CodeCancelled}) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = Create(t.Context(), CreateOptions{Dir: dir, From: from, Log: quiet, Reserve: 1 << 60})
		if !errors.Is(err, &api.Error{Code: api.CodeSpace}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestCreateAfterACrash(t *testing.T) {
	parent := t.TempDir()
	dir, part := filepath.Join(parent, "disk"), filepath.Join(parent, ".disk.unfinished")
	d, err := vmdisk.Create(part, vmdisk.NewID(), 1<<20, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// While somebody is at it, it is left alone.
	if _, err := Create(t.Context(), CreateOptions{Dir: dir, Size: 4096, Log: quiet}); !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
		t.Errorf("beside another attempt: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := Create(t.Context(), CreateOptions{Dir: dir, Size: 4096 + 1, Log: quiet})
	if err != nil || info.Size != 2*4096 {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what the crash left is there: %v", err)
	}
	// An empty directory is as good as none.
	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), CreateOptions{Dir: empty, Size: 4096, Log: quiet}); err != nil {
		t.Error(err)
	}
}
