package app

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/mirror"
)

var seedMiB = flag.Int64("seed.mib", 64, "how large the disk of TestASeededCopyGetsWhatDiffers is, in MiB")

// seedable is a fleet of two of which one owns a VM with a full disk, and the other knows of it and has nothing: until welcome is called its
// owner is turned away.
type seedable struct {
	owner, other *device
	id           string
	size         int64
	guest        demanding // the other device's
}

func newSeedable(t *testing.T, size int64) *seedable {
	t.Helper()
	return newSeedableAt(t, size, 0)
}

// newSeedableAt is newSeedable that, while its guest wants something, fills at floor bytes a second.
func newSeedableAt(t *testing.T, size, floor int64) *seedable {
	t.Helper()
	s := &seedable{owner: newDevice(t, "desk"), other: newDevice(t, "laptop"), size: size, guest: demanding{floor: floor}}
	s.other.stop()
	s.other.prepare = s.guest.prepare
	s.other.start()
	job, err := s.owner.engine.CreateVM(t.Context(), api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 64, DiskBytes: size})
	if err != nil {
		t.Fatal(err)
	}
	if j := s.owner.finished(job.ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	s.id = job.VM
	if err := s.owner.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	r, p := rand.NewChaCha8([32]byte{3}), make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		_, _ = r.Read(p)
		if err := s.owner.engine.vm(s.id).currentDisk().WriteAt(p, off, false); err != nil {
			t.Fatal(err)
		}
	}
	for _, protocol := range []string{mirror.Protocol, compare.Protocol} {
		s.other.engine.host.Handle(protocol, func(_ context.Context, st p2p.Stream) { _ = st.Reset() })
	}
	pair(t, s.owner, s.other)
	until(t, "the VM's record", func() bool { return s.other.engine.vm(s.id) != nil })
	return s
}

// welcome lets the owner in.
func (s *seedable) welcome() {
	e := s.other.engine
	e.host.Handle(compare.Protocol, e.handleCompare)
	e.host.Handle(mirror.Protocol, e.handleMirror)
}

// export writes the disk as it is now into a file.
func (s *seedable) export(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	format := api.DiskRaw
	if filepath.Ext(name) == ".qcow2" {
		format = api.DiskQcow2
	}
	job, err := s.owner.engine.ExportDisk(t.Context(), api.ExportDisk{Disk: "Work", File: file, Format: format})
	if err != nil {
		t.Fatal(err)
	}
	if j := s.owner.finished(job.ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	return file
}

// seed fills the other device's copy.
func (s *seedable) seed(t *testing.T, file, format string) api.Job {
	t.Helper()
	job, err := s.other.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file, Format: format})
	if err != nil {
		t.Fatal(err)
	}
	return s.other.finished(job.ID)
}

// same waits until the copy is live, and compares the disks.
func (s *seedable) same(t *testing.T) {
	t.Helper()
	s.owner.live("Work")
	a, b := s.owner.engine.vm(s.id).currentDisk(), s.other.engine.vm(s.id).currentDisk()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < s.size; off += int64(len(x)) {
		if err := errors.Join(a.ReadAt(x, off), b.ReadAt(y, off)); err != nil {
			t.Fatal(err)
		}
		if string(x) != string(y) {
			t.Fatalf("the disks differ in the MiB at %d", off)
		}
	}
}

// Of a disk that was carried by hand only the blocks that differ travel. Before they have all come there is no copy that anybody could use.
func TestASeededCopyGetsWhatDiffers(t *testing.T) {
	for _, name := range []string{"work.raw", "work.qcow2"} {
		t.Run(name, func(t *testing.T) {
			s := newSeedable(t, *seedMiB<<20)
			file := s.export(t, name)
			blocks := s.size / blockSize
			r, p := rand.New(rand.NewPCG(1, 9)), make([]byte, blockSize)
			changed := map[int64]bool{}
			for int64(len(changed)) < blocks/100 {
				x := r.Int64N(blocks)
				changed[x] = true
				for i := range p {
					p[i] = byte(r.Uint32())
				}
				if err := s.owner.engine.vm(s.id).currentDisk().WriteAt(p, x*blockSize, false); err != nil {
					t.Fatal(err)
				}
			}
			j := s.seed(t, file, "")
			if j.Error != nil || j.Seed == nil || j.Seed.Read != s.size || j.Seed.Unreadable != 0 {
				t.Fatalf("seeded: %+v, %v", j, j.Error)
			}
			if info := s.other.engine.vm(s.id).currentDisk().Info(); info.Complete || info.Position.Term != 0 {
				t.Fatalf("what is seeded counts as a copy: %+v", info)
			}
			if _, err := s.other.engine.Takeover(t.Context(), "Work"); err == nil {
				t.Error("what is seeded could be taken over")
			}
			s.welcome()
			s.same(t)
			f := s.owner.engine.vm(s.id).feed(s.other.engine.host.ID())
			if n := moved(s.owner, s.other, s.id); n != int64(len(changed))*blockSize {
				t.Errorf("%d blocks moved, want %d", n/blockSize, len(changed))
			}
			content := f.stats.Sent.Load() + f.stats.Received.Load()
			sums := f.compared.Sent.Load() + f.compared.Received.Load()
			floor := int64(len(changed)) * blockSize
			t.Logf("%d bytes changed (%d blocks of %d); the mirror moved %d, the comparison %d: %.3f times what changed", floor, len(changed), blocks, content, sums, float64(content+sums)/float64(floor))
			if limit := floor + floor/10; content+sums > limit {
				t.Errorf("%d bytes travelled, more than %d", content+sums, limit)
			}
			if _, err := s.other.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file}); err == nil || !strings.Contains(err.Error(), "whole copy") {
				t.Errorf("a whole copy may be filled: %v", err)
			}
			if _, err := s.owner.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file}); err == nil {
				t.Error("the owner's disk may be filled")
			}
		})
	}
}

// While a copy is filled its owner waits, and a restart in the middle leaves what was read.
func TestSeedingIsCutShort(t *testing.T) {
	s := newSeedable(t, 32<<20)
	file := s.export(t, "work.raw")
	// Halfway through the file somebody has pulled the plug: the engine ends while the rest waits for guests.
	s.guest.wants.Store(true)
	job, err := s.other.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file, Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	v := s.other.engine.vm(s.id)
	until(t, "the copy to be filled", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.seeding != nil && v.disk != nil
	})
	if _, err := s.other.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file}); !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
		t.Errorf("filled twice at once: %v", err)
	}
	if _, err := v.beginApplying(&applyRun{}, 0); err == nil {
		t.Error("the owner may write meanwhile")
	}
	if _, _, err := v.beginComparing(t.Context(), &compareRun{}); err == nil {
		t.Error("the owner may compare meanwhile")
	}
	if err := s.other.engine.CancelJob(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if j := s.other.finished(job.ID); j.Error == nil || j.Error.Code != api.CodeCancelled {
		t.Errorf("cancelled, it ended with %v", j.Error)
	}
	again, err := s.other.engine.SeedVM(t.Context(), api.SeedVM{VM: "Work", File: file, Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	_ = again
	s.other.stop()
	s.guest.wants.Store(false)
	s.other.start() // the owner comes in at once, and finds half a seed
	s.same(t)
}

// While the owner copies, a seed interrupts it, and it goes on with what differs.
func TestSeedingAHalfCopiedReplica(t *testing.T) {
	s := newSeedable(t, 32<<20)
	file := s.export(t, "work.raw")
	disk := func() error { return s.other.engine.vm(s.id).makeReplica() }
	if err := disk(); err != nil {
		t.Fatal(err)
	}
	v := s.other.engine.vm(s.id)
	// What the owner has sent so far of a first copy.
	a, err := v.currentDisk().Apply()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Begin([16]byte{1}), a.Write(0, make([]byte, 4*blockSize)), a.Close()); err != nil {
		t.Fatal(err)
	}
	if j := s.seed(t, file, "raw"); j.Error != nil {
		t.Fatal(j.Error)
	}
	s.owner.write(s.id, 77, 'x')
	s.welcome()
	s.same(t)
	if n := moved(s.owner, s.other, s.id); n != blockSize {
		t.Errorf("%d blocks moved, want one", n/blockSize)
	}
}

// Files that aren't what they should be are refused with a sentence, or are of little use: they never make a wrong copy.
func TestSeedingFromBadFiles(t *testing.T) {
	s := newSeedable(t, 16<<20)
	dir := t.TempDir()
	whole := s.export(t, "whole.qcow2")
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	larger := file("larger.raw", nil)
	if err := os.Truncate(larger, s.size+3<<20); err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]api.SeedVM{
		"a directory":       {File: dir},
		"nothing":           {File: filepath.Join(dir, "missing")},
		"an unknown format": {File: whole, Format: "iso"},
		"not what it says":  {File: larger, Format: "qcow2"},
		"a device":          {File: os.DevNull, Format: "raw"},
	} {
		bad.VM = "Work"
		var told *api.Error
		if _, err := s.other.engine.SeedVM(t.Context(), bad); !errors.As(err, &told) || told.Next == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if j := s.seed(t, larger, ""); j.Error != nil {
		t.Errorf("a larger file with nothing past the disk's end: %v", j.Error)
	}
	f, err := os.OpenFile(larger, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, s.size+2<<20); errors.Join(err, f.Close()) != nil {
		t.Fatal(err)
	}
	if j := s.seed(t, larger, ""); j.Error == nil || j.Error.Code != api.CodeUsage {
		t.Errorf("a larger file with something past the disk's end: %v", j.Error)
	}
	s.seed(t, file("truncated.qcow2", b[:len(b)/2]), "qcow2") // as much of it as qemu-img reads
	if j := s.seed(t, file("smaller.raw", make([]byte, 5000)), "raw"); j.Error != nil || j.Seed.Read != 5000 {
		t.Errorf("a smaller file: %+v, %v", j, j.Error)
	}
	s.welcome()
	s.same(t)
}
