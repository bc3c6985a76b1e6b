package vmdisk

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// mounted is a new file system of that kind.
func mounted(t *testing.T, kind string, options ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	must(t, os.WriteFile(img, nil, 0o600))
	must(t, os.Truncate(img, 400<<20))
	must(t, os.Mkdir(mnt, 0o700))
	for _, c := range [][]string{append(append([]string{"mkfs." + kind, "-q"}, options...), img), {"mount", "-o", "loop", img, mnt}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s (build/deps.sh test installs what is missing)", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return mnt
}

// free is what a file system has left, when all is on it.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync()
	n, err := vfs.OS(dir).Free()
	must(t, err)
	return n
}

// On file systems whose files can share blocks a clone takes no space, and what is written afterwards isn't shared.
func TestCloneShares(t *testing.T) {
	for kind, options := range map[string][]string{"xfs": {"-m", "reflink=1"}, "btrfs": nil} {
		t.Run(kind, func(t *testing.T) {
			top := mounted(t, kind, options...)
			src, dst := filepath.Join(top, "src"), filepath.Join(top, "dst")
			d, err := Create(src, ID{1}, 64<<20, Options{})
			must(t, err)
			must(t, d.Activate(1))
			r, p := rand.NewChaCha8([32]byte{1}), make([]byte, 1<<20)
			for off := int64(0); off < 48<<20; off += int64(len(p)) {
				_, _ = r.Read(p)
				must(t, d.WriteAt(p, off, false))
			}
			must(t, d.Fence())
			must(t, d.Flush())
			want, before := content(t, d), free(t, top)
			must(t, d.Clone(context.Background(), dst, CloneOptions{}, func(done, total int64) { t.Errorf("%d of %d bytes were copied", done, total) }))
			if took := before - free(t, top); took > 8<<20 {
				t.Errorf("the clone takes %d bytes", took)
			}
			must(t, d.Unfence())
			must(t, d.WriteAt(blockOf(0xff), 5*Block, true))
			must(t, d.Close())
			c, err := Open(dst, Options{})
			must(t, err)
			if !bytes.Equal(content(t, c), want) {
				t.Error("the clone isn't what the disk was")
			}
			must(t, c.Close())
		})
	}
}
