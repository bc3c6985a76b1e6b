package app

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/vmdisk"
)

const comparedDisk = 64 << 20

// filled is a fleet of two with a disk of 64 MiB, most of it full of what compresses to nothing smaller, and live on both.
func filled(t *testing.T) (owner, other *device, id string) {
	t.Helper()
	owner, other = newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, owner, other)
	job, err := owner.engine.CreateVM(t.Context(), api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 64, DiskBytes: comparedDisk})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the VM", func() bool {
		v, ok := owner.vm("Work")
		id = v.ID
		return ok && job.ID != ""
	})
	if err := owner.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	r, p := rand.NewChaCha8([32]byte{1}), make([]byte, 1<<20)
	for off := int64(0); off < comparedDisk*3/4; off += int64(len(p)) {
		_, _ = r.Read(p)
		if err := owner.engine.vm(id).currentDisk().WriteAt(p, off, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := owner.engine.vm(id).currentDisk().Flush(); err != nil {
		t.Fatal(err)
	}
	owner.live("Work")
	return owner, other, id
}

// same waits until both disks are alike.
func same(t *testing.T, a, b *device, id string) {
	t.Helper()
	x, y := make([]byte, comparedDisk), make([]byte, comparedDisk)
	for d, p := range map[*device][]byte{a: x, b: y} {
		if err := d.engine.vm(id).currentDisk().ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(x, y) {
		t.Fatal("the disks differ")
	}
}

// writeApart has the guest write on to the disk of a stopped owner. A copy that is known to be where the disk is, or where it was when it was opened, needn't
// be compared: after this the other device's is neither.
func writeApart(t *testing.T, owner *device, id string, writes ...func(*vmdisk.Store) error) {
	t.Helper()
	disk, err := vmdisk.Open(owner.engine.diskDir(id), vmdisk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = disk.Activate(1)
	for _, write := range writes {
		err = errors.Join(err, write(disk))
	}
	if err := errors.Join(err, disk.Close()); err != nil {
		t.Fatal(err)
	}
}

// filling writes a block full of one byte, durably.
func filling(block int64, fill byte) func(*vmdisk.Store) error {
	return func(disk *vmdisk.Store) error {
		return disk.WriteAt(bytes.Repeat([]byte{fill}, blockSize), block*blockSize, true)
	}
}

// loseDirtySet deletes what a stopped owner knows of the one other device's copy.
func loseDirtySet(t *testing.T, owner *device, id string) {
	t.Helper()
	sets, err := filepath.Glob(filepath.Join(owner.dir, "vms", id, "disk", "dirty-*"))
	if err != nil || len(sets) != 1 {
		t.Fatalf("%v, %v", sets, err)
	}
	if err := os.Remove(sets[0]); err != nil {
		t.Fatal(err)
	}
}

// moved is how much of the disk the owner has sent to the other since it began to feed it: content, and zeros that take no bytes.
func moved(owner, other *device, id string) int64 {
	f := owner.engine.vm(id).feed(other.engine.host.ID())
	return f.stats.Data.Load() + f.stats.Zeroed.Load()
}

// An owner that has lost what it knew of a device's copy compares: what differs moves, and nothing else.
func TestALostDirtySetIsComparedAgain(t *testing.T) {
	owner, other, id := filled(t)
	owner.stop()
	// The guest goes on without the other device, and then the set is lost.
	writeApart(t, owner, id, filling(100, 'x'), filling(comparedDisk/blockSize-1, 'y'))
	loseDirtySet(t, owner, id)
	owner.start()
	owner.live("Work")
	same(t, owner, other, id)
	if n := moved(owner, other, id); n != 2*blockSize {
		t.Errorf("%d bytes moved, want two blocks", n)
	}
	f := owner.engine.vm(id).feed(other.engine.host.ID())
	if n := f.compared.Received.Load(); n == 0 || n > 64<<10 {
		t.Errorf("the comparison cost %d bytes", n)
	}
}

// A copy that went back to an older state, such as from a backup, is compared too; what the guest writes meanwhile isn't lost.
func TestAnOlderCopyIsCompared(t *testing.T) {
	owner, other, id := filled(t)
	other.stop()
	disk := filepath.Join(other.dir, "vms", id, "disk")
	backup := filepath.Join(t.TempDir(), "disk")
	if err := vmdisk.Clone(t.Context(), backup, disk, vmdisk.CloneOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	other.start()
	owner.live("Work")
	for block := range int64(20) {
		owner.write(id, 500*block, byte('a'+block))
	}
	owner.live("Work")
	before := moved(owner, other, id)
	other.stop()
	if err := os.RemoveAll(disk); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, disk); err != nil {
		t.Fatal(err)
	}
	other.start()
	for i := range int64(40) {
		owner.write(id, 7001+i, byte(1+i))
	}
	owner.live("Work")
	same(t, owner, other, id)
	if n := moved(owner, other, id) - before; n < 60*blockSize || n > 100*blockSize {
		t.Errorf("%d blocks moved, want little more than 60", n/blockSize)
	}
}

// A device whose copy can't be compared, however often it is tried, gets everything.
func TestACopyThatCannotBeComparedGetsEverything(t *testing.T) {
	owner, other, id := filled(t)
	owner.stop()
	writeApart(t, owner, id, filling(100, 'x'))
	loseDirtySet(t, owner, id)
	other.engine.host.Handle(compare.Protocol, func(_ context.Context, s p2p.Stream) { _, _ = s.Write([]byte("no")) })
	owner.start()
	owner.live("Work")
	same(t, owner, other, id)
	if n := moved(owner, other, id); n < comparedDisk/2 {
		t.Errorf("%d bytes moved", n)
	}
}

// While two PCs were apart both wrote, and the disk of one became larger. Whichever side the person keeps, the other follows it again, and only what differs moves.
func TestAfterAChoiceOnlyWhatDiffersMoves(t *testing.T) {
	for _, keep := range []string{"desk", "laptop"} {
		t.Run(keep, func(t *testing.T) {
			desk, laptop, id := filled(t)
			if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
				t.Fatal(err)
			}
			desk.live("Work")
			desk.stop()
			disk, err := vmdisk.Open(desk.engine.diskDir(id), vmdisk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				disk.Activate(1), disk.WriteAt(bytes.Repeat([]byte{'d'}, blockSize), 100*blockSize, false),
				disk.WriteAt(bytes.Repeat([]byte{'d'}, blockSize), comparedDisk-blockSize, true),
				disk.Resize(comparedDisk + 4<<20), disk.WriteAt(bytes.Repeat([]byte{'D'}, blockSize), comparedDisk+2<<20, true), disk.Close(),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			until(t, "the laptop to miss the desk", func() bool { return !laptop.engine.linked(desk.engine.host.ID()) })
			laptop.takeOver("Work")
			laptop.write(id, 200, 'l')
			laptop.write(id, comparedDisk/blockSize-2, 'l')
			desk.start()
			until(t, "the conflict", func() bool {
				a, _ := desk.vm("Work")
				b, _ := laptop.vm("Work")
				return a.Conflict != nil && b.Conflict != nil
			})
			winner, loser := desk, laptop
			if keep == "laptop" {
				winner, loser = laptop, desk
			}
			v, _ := winner.vm("Work")
			for _, s := range v.Conflict.Sides {
				if s.Here {
					if _, err := winner.engine.Resolve(t.Context(), api.ResolveConflict{VM: "Work", How: api.ResolveKeep, Keep: s.Branch}); err != nil {
						t.Fatal(err)
					}
				}
			}
			until(t, "the winner to own the VM", func() bool { v, _ := winner.vm("Work"); return v.Here && v.Conflict == nil })
			winner.live("Work")
			same(t, winner, loser, id)
			blocks, beyond := int64(4), byte(0)
			if keep == "desk" {
				blocks, beyond = 5, 'D' // the laptop's copy has grown
			}
			if n := moved(winner, loser, id); n != blocks*blockSize {
				t.Errorf("%d blocks moved, want %d", n/blockSize, blocks)
			}
			p := make([]byte, blockSize)
			if err := loser.engine.vm(id).currentDisk().ReadAt(p, comparedDisk+2<<20); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{beyond}, blockSize)) {
				t.Errorf("beyond the end that was: %q, %v", p[0], err)
			}
			point, _ := loser.vm("Work")
			if len(point.RestorePoints) != 1 {
				t.Errorf("the loser has %d restore points", len(point.RestorePoints))
			}
		})
	}
}
