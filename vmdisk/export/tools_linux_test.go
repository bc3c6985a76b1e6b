package export

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"tagalong.org/tagalong/vmdisk"
)

func tool(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// qemu-img finds nothing wrong with the files, neither with many clusters nor with none, and reads the same from both.
func TestQemuAgrees(t *testing.T) {
	dir := t.TempDir()
	disks := map[string]*fake{
		"small": scattered(1, 3*vmdisk.Block),
		"big":   scattered(2, 600<<20+vmdisk.Block), // in two windows
		"empty": {size: 1 << 40},
		"full":  {size: 3 << 20, blocks: map[int64]byte{}},
	}
	for b := range int64(3 << 20 / vmdisk.Block) {
		disks["full"].blocks[b] = 5
	}
	for name, d := range disks {
		raw, qcow := filepath.Join(dir, name+".raw"), filepath.Join(dir, name+".qcow2")
		for path, format := range map[string]string{raw: Raw, qcow: Qcow2} {
			if err := File(t.Context(), path, d, Options{Format: format}); err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Fatalf("%v, %v", st, err)
			}
		}
		if out := tool(t, "qemu-img", "check", "-f", "qcow2", qcow); !bytes.Contains(out, []byte("No errors were found")) {
			t.Errorf("%s: %s", name, out)
		}
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow)
	}
}

// What is exported of a cut is what the disk was, while a guest goes on writing.
func TestExportOfACut(t *testing.T) {
	dir := t.TempDir()
	d, err := vmdisk.Create(filepath.Join(dir, "disk"), vmdisk.NewID(), 32<<20, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Activate(1); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("as it was "), 3<<20/10)
	if err := d.WriteAt(want, 1<<20, false); err != nil {
		t.Fatal(err)
	}
	c, err := d.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop := make(chan struct{})
	var guest sync.WaitGroup
	guest.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := d.WriteAt(bytes.Repeat([]byte{byte(i)}, 40000), i*7919%(31<<20), false); err != nil {
				t.Error(err)
				return
			}
		}
	})
	out := filepath.Join(dir, "out.qcow2")
	err = File(t.Context(), out, c, Options{Format: Qcow2, Read: c.Release})
	close(stop)
	guest.Wait()
	if err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "check", out)
	tool(t, "qemu-img", "convert", "-O", "raw", out, out+".raw")
	got, err := os.ReadFile(out + ".raw")
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 32<<20)
	copy(all[1<<20:], want)
	if !bytes.Equal(got, all) {
		t.Fatal("the file isn't what the disk was")
	}
}
