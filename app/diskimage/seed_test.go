package diskimage

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
)

const seedSize = 4 << 20

// newSeeding is a replica to be filled, of seedSize.
func newSeeding(t *testing.T) *vmdisk.Seeding {
	t.Helper()
	d, err := vmdisk.CreateReplica(t.TempDir(), vmdisk.NewID(), seedSize, vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(s.Close(), d.Close()) })
	return s
}

func random(n int) []byte {
	p, r := make([]byte, n), rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

func held(t *testing.T, d vmdisk.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// badDrive is an image on a drive that can't read some of it.
type badDrive struct {
	content []byte
	bad     func(off int64) bool // of a block
}

func (d badDrive) ReadAt(p []byte, off int64) (int, error) {
	for at := off; at < off+int64(len(p)); at += vmdisk.Block {
		if d.bad(at / vmdisk.Block * vmdisk.Block) {
			return 0, syscall.EIO
		}
	}
	if off >= int64(len(d.content)) {
		return 0, io.EOF
	}
	n := copy(p, d.content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d badDrive) dataAt(off int64) int64 { return off }

func TestSeedLeavesOutWhatCannotBeRead(t *testing.T) {
	s, content := newSeeding(t), random(seedSize)
	bad := func(off int64) bool { x := off / vmdisk.Block; return x == 3 || x >= 300 && x < 500 }
	var last int64
	got, err := seedRaw(t.Context(), s, Image{Path: "x", Size: seedSize}, badDrive{content, bad}, func(done int64) { last = done })
	if err != nil || got != (Seeded{Read: seedSize, Unreadable: 201 * vmdisk.Block}) || last != seedSize {
		t.Fatalf("%+v up to %d, %v", got, last, err)
	}
	want := bytes.Clone(content)
	for off := int64(0); off < seedSize; off += vmdisk.Block {
		if bad(off) {
			clear(want[off : off+vmdisk.Block])
		}
	}
	if !bytes.Equal(held(t, s), want) {
		t.Error("something else was read")
	}
}

// A stick that is pulled out, and a file that is cut off, end it; what was read until then stays.
func TestSeedEndsWhenTheFileIsGone(t *testing.T) {
	content := random(seedSize)
	for what, from := range map[string]badDrive{
		"pulled out": {content, func(off int64) bool { return off >= 2<<20 }},
		"cut off":    {content[:2<<20], func(int64) bool { return false }},
	} {
		s := newSeeding(t)
		_, err := seedRaw(t.Context(), s, Image{Path: "x", Size: seedSize}, from, func(int64) {})
		var told *api.Error
		if !errors.As(err, &told) {
			t.Errorf("%s: %v", what, err)
		}
		if p := held(t, s); !bytes.Equal(p[:2<<20], content[:2<<20]) || !bytes.Equal(p[2<<20:], make([]byte, 2<<20)) {
			t.Errorf("%s: something else was read", what)
		}
	}
}

// Every format puts the same into the disk, over what was there, zeros too; and what is larger must have nothing there.
func TestSeedFormats(t *testing.T) {
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatal("qemu-utils must be there: ", err)
	}
	dir := t.TempDir()
	content := random(seedSize)
	clear(content[1<<20 : 3<<20])
	raw := filepath.Join(dir, "a.raw")
	for _, size := range []int64{seedSize, seedSize - 5000, seedSize + 1<<20, -seedSize} {
		over := size < 0 // something past the end
		if over {
			size = seedSize + 1<<20
		}
		p := make([]byte, size)
		copy(p, content)
		if over {
			p[size-1] = 1
		}
		if err := os.WriteFile(raw, p, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"raw", "qcow2", "vmdk"} {
			path := raw
			if format != "raw" {
				path = filepath.Join(dir, "a."+format)
				if out, err := exec.Command(tool, "convert", "-f", "raw", "-O", format, raw, path).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v", out, err)
				}
			}
			img, err := Inspect(t.Context(), path, format)
			if err != nil {
				t.Fatal(err)
			}
			s := newSeeding(t)
			before := bytes.Repeat([]byte{9}, seedSize)
			if err := s.WriteAt(before, 0, false); err != nil {
				t.Fatal(err)
			}
			got, err := Seed(t.Context(), s, img, filepath.Join(dir, "s"), slog.New(slog.DiscardHandler), func(int64) {})
			if over {
				if !errors.Is(err, &api.Error{Code: api.CodeUsage}) {
					t.Errorf("%s with something past the end: %v", format, err)
				}
				continue
			}
			// Formats but raw round up, with zeros.
			n := min(img.Size, seedSize)
			if format == "raw" {
				n = min(size, seedSize)
			}
			if err != nil || got != (Seeded{Read: n}) {
				t.Fatalf("%s of %d: %+v, %v", format, size, got, err)
			}
			want := append(append(bytes.Clone(content[:min(size, n)]), make([]byte, n-min(size, n))...), before[n:]...)
			if !bytes.Equal(held(t, s), want) {
				t.Errorf("%s of %d: the content differs", format, size)
			}
		}
	}
}
