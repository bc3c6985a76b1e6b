package disknbd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/vmdisk"
)

// These tests hold a real disk against the clients that people use, and open it again in between. How the server alone stands
// up to them is tested in vmdisk/nbd.

// toolsSize is the size of the disks, in bytes.
const toolsSize = 16<<20 + 4096

// used serves the disk in dir, which is made if it is missing, as long as f runs, closes it and checks it.
func used(t *testing.T, dir string, f func(t *testing.T, d *vmdisk.Store, uri string)) {
	t.Helper()
	t.Run("", func(t *testing.T) { // its end ends the server
		d, err := vmdisk.Open(dir, vmdisk.Options{})
		if _, missing := os.Stat(dir); errors.Is(missing, os.ErrNotExist) {
			d, err = vmdisk.Create(dir, vmdisk.NewID(), toolsSize, vmdisk.Options{})
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			r, err := d.Check(context.Background(), vmdisk.CheckOptions{})
			if err = errors.Join(err, d.Close()); err != nil || !r.OK() {
				t.Errorf("%+v, %v", r, err)
			}
		})
		if err := d.Activate(1); err != nil {
			t.Fatal(err)
		}
		f(t, d, serve(t, Backend{Disk: d}))
	})
	if t.Failed() {
		t.FailNow()
	}
}

// do runs a tool that must succeed.
func do(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// image is a file of the disk's size with noise, zeros and holes, and its content.
func image(t *testing.T, seed byte) (path string, content []byte) {
	t.Helper()
	content = make([]byte, toolsSize)
	noise := rand.NewChaCha8([32]byte{seed})
	for off := 0; off < len(content); off += 3 << 16 {
		_, _ = noise.Read(content[off:min(off+1<<16, len(content))]) // never fails
	}
	path = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	for off := 0; off < len(content) && err == nil; off += 1 << 16 {
		if off%(5<<16) != 1<<16 { // zeros that are stored, too
			_, err = f.WriteAt(content[off:min(off+1<<16, len(content))], int64(off))
		}
	}
	clearHoles(content)
	if err = errors.Join(err, f.Truncate(toolsSize), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// clearHoles makes zeros of what image leaves out.
func clearHoles(content []byte) {
	for off := 1 << 16; off < len(content); off += 5 << 16 {
		clear(content[off:min(off+1<<16, len(content))])
	}
}

func TestNbdcopyThereAndBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	file, want := image(t, 1)
	used(t, dir, func(t *testing.T, _ *vmdisk.Store, uri string) { do(t, "nbdcopy", "--flush", file, uri) })
	used(t, dir, func(t *testing.T, d *vmdisk.Store, uri string) {
		back := filepath.Join(t.TempDir(), "back")
		do(t, "nbdcopy", uri, back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the copy back differs: %v", err)
		}
		do(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
		qcow2 := filepath.Join(t.TempDir(), "back.qcow2")
		do(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, qcow2)
		do(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, qcow2)
		if out := do(t, "qemu-img", "map", "--output=json", "-f", "raw", uri); !strings.Contains(out, `"data": false`) {
			t.Errorf("a map without holes: %s", out)
		}
		// From one of our disks to another, which is a cut of the first.
		cut, err := d.Cut(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := cut.Close(); err != nil {
				t.Error(err)
			}
		}()
		frozen := serve(t, ReadOnly{cut})
		do(t, "qemu-img", "bench", "-f", "raw", "-w", "-c", "240", "-d", "16", "-s", "65536", "--flush-interval=64", "--pattern=7", uri)
		do(t, "qemu-img", "bench", "-f", "raw", "-c", "1000", "-d", "32", "-s", "4096", uri)
		do(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, frozen)
		if out, err := tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri); err == nil {
			t.Errorf("the bench wrote nothing: %s", out)
		}
		do(t, "nbdcopy", frozen, uri)
		do(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
	})
}

func TestQemuIO(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	qemuIO := func(t *testing.T, uri string, commands ...string) {
		t.Helper()
		args := []string{"-f", "raw", "-d", "unmap"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		if out := do(t, "qemu-io", append(args, uri)...); strings.Contains(out, "failed") || strings.Contains(out, "rror") {
			t.Errorf("qemu-io says:\n%s", out)
		}
	}
	reads := []string{
		"read -P 1 0 512", "read -P 2 512 512", "read -P 1 1024 2976", "read -P 3 4000 200", "read -P 1 4200 98200",
		"read -P 4 100k 10k", "read -P 1 110k 90k", "read -P 0 200k 300k", "read -P 1 500k 1000",
		"read -P 1 590000 10001", "read -P 0 600001 5000", "read -P 1 605001 1000", "read -P 7 1M 3M", "read -P 8 4M 3M", "read -P 6 7M 1M",
	}
	used(t, dir, func(t *testing.T, d *vmdisk.Store, uri string) {
		qemuIO(t, uri, append([]string{
			"write -P 1 0 1M", "write -P 2 512 512", "write -P 3 4000 200", "write -f -P 4 100k 10k",
			"write -z 200k 100k", "write -z -u 300k 100k", "discard 400k 100k", "write -z 600001 5000",
			"write -P 6 7M 1M", "aio_write -P 7 1M 3M", "aio_write -P 8 4M 3M", "aio_flush", "flush",
		}, reads...)...)
		if p := d.Position(); p.Barrier == 0 {
			t.Errorf("flushes and FUA made no barrier: %s", p)
		}
	})
	used(t, dir, func(t *testing.T, _ *vmdisk.Store, uri string) {
		qemuIO(t, uri, reads...)
		holes := extents(t, uri)
		if end := fmt.Sprintf("{%d %d 3}]", 8<<20, toolsSize-8<<20); !strings.HasSuffix(holes, end) {
			t.Errorf("what was never written is no hole: %s, want %s at the end", holes, end)
		}
	})
}

// fio knows what it wrote at random, also after the disk was opened again.
func TestFioVerifies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	fio := func(t *testing.T, uri string, more ...string) (string, error) {
		args := []string{"--name=verify", "--ioengine=nbd", "--uri=" + uri, "--size=16m", "--verify=crc32c", "--verify_interval=4k",
			"--verify_fatal=1", "--aux-path=" + t.TempDir()}
		return tool(t, "fio", append(args, more...)...)
	}
	used(t, dir, func(t *testing.T, _ *vmdisk.Store, uri string) {
		if out, err := fio(t, uri, "--rw=randwrite", "--bsrange=4k-128k", "--iodepth=32", "--fsync=64", "--randseed=7", "--do_verify=0"); err != nil {
			t.Error(out)
		}
	})
	used(t, dir, func(t *testing.T, _ *vmdisk.Store, uri string) {
		if out, err := fio(t, uri, "--rw=randread", "--bs=64k", "--iodepth=8"); err != nil {
			t.Errorf("opened again: %s", out)
		}
		if out, err := fio(t, uri, "--rw=randrw", "--bs=4k", "--io_size=16m", "--iodepth=16", "--verify_backlog=256", "--randseed=8", "--fsync=128"); err != nil {
			t.Error(out)
		}
		do(t, "qemu-io", "-f", "raw", "-c", "write -P 9 5M 512", uri)
		if out, err := fio(t, uri, "--rw=read", "--bs=64k"); err == nil {
			t.Errorf("fio finds nothing wrong with what it didn't write: %s", out)
		}
	})
}
