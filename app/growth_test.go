package app

import (
	"bytes"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
)

// A disk that becomes larger on its owner does so on the other device: when that has heard of it, and not before.
func TestACopyGrowsWithItsDisk(t *testing.T) {
	desk, laptop := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, desk, laptop)
	const before, after = 8 << 20, 48 << 20
	if _, err := desk.engine.CreateVM(t.Context(), api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 64, DiskBytes: before}); err != nil {
		t.Fatal(err)
	}
	var id string
	until(t, "the VM", func() bool {
		v, ok := desk.vm("Work")
		id = v.ID
		return ok
	})
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.live("Work")
	v, disk := desk.engine.vm(id), desk.engine.vm(id).currentDisk()
	copyOf := func() *vmdisk.Store { return laptop.engine.vm(id).currentDisk() }
	write := func(off int64, b byte) {
		t.Helper()
		if err := disk.WriteAt(bytes.Repeat([]byte{b}, vmdisk.Block), off, true); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 1)
	if err := laptop.engine.vm(id).fit(copyOf(), after); err == nil || copyOf().Size() != before {
		t.Fatalf("it grew to %d without having heard of it: %v", copyOf().Size(), err)
	}
	if err := v.tellSize(after); err != nil {
		t.Fatal(err)
	}
	if err := disk.Resize(after); err != nil {
		t.Fatal(err)
	}
	write(before, 2)
	write(after-vmdisk.Block, 3)
	until(t, "the copy to have grown", func() bool {
		return copyOf().Size() == after && copyOf().Position() == disk.Position()
	})
	x, y := make([]byte, after), make([]byte, after)
	if err := disk.ReadAt(x, 0); err != nil {
		t.Fatal(err)
	}
	if err := copyOf().ReadAt(y, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Error("the disks differ")
	}
	// An owner whose disk is larger than what the fleet knows tells it by itself.
	if err := disk.Resize(after + 1<<20); err != nil {
		t.Fatal(err)
	}
	write(after, 4)
	until(t, "the copy to have grown again", func() bool {
		return copyOf().Size() == after+1<<20 && copyOf().Position() == disk.Position()
	})
	if r, ok := laptop.engine.vm(id).record(); !ok || r.DiskBytes != after+1<<20 {
		t.Errorf("the record says %d", r.DiskBytes)
	}
}
