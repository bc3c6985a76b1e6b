package app

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/volumes/window"
)

// image is a raw image of n blocks.
func image(t *testing.T, fill byte, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(path, bytes.Repeat([]byte{fill}, n*blockSize), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// on is one of a VM's disks on this device.
func (d *device) on(id, disk string) *window.Disk {
	d.t.Helper()
	v := d.engine.vm(id)
	table, err := v.table()
	if err != nil {
		d.t.Fatal(err)
	}
	w, ok := table.Find(disk)
	if !ok {
		d.t.Fatalf("%s has no disk %s", d.name, disk)
	}
	return window.New(v.currentDisk(), w)
}

func (d *device) done(job *api.Job, err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	j := d.engine.job(job.ID)
	<-j.ended
	if failed := j.snapshot().Error; failed != nil {
		d.t.Fatal(failed)
	}
}

func holds(t *testing.T, w *window.Disk, off int64, fill byte) {
	t.Helper()
	b := make([]byte, blockSize)
	if err := w.ReadAt(b, off); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{fill}, blockSize)) {
		t.Errorf("%d bytes at %d begin with %q: %v", len(b), off, b[0], err)
	}
}

// TestDisksOfAVM makes, adds, grows and removes disks, and takes all of them to another device, under one position.
func TestDisksOfAVM(t *testing.T) {
	desk, laptop := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, desk, laptop)
	ctx := t.Context()
	desk.done(desk.engine.CreateVM(ctx, api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 64, Image: image(t, 'a', 300), Format: "raw",
		Disks: []api.NewDisk{{Bytes: 2 << 20}, {Name: "photos", Image: image(t, 'c', 20), Format: "raw"}}}))
	v, _ := desk.vm("Work")
	if disks := v.Spec.Disks(); len(disks) != 3 || disks[0].Bytes() != 300*blockSize || disks[1].ID != "disk2" || disks[2].Called() != "photos" {
		t.Fatalf("%+v", disks)
	}
	holds(t, desk.on(v.ID, "disk1"), 299*blockSize, 'a')
	holds(t, desk.on(v.ID, "photos"), 19*blockSize, 'c')
	desk.live("Work")

	desk.done(desk.engine.AddDisk(ctx, api.AddDisk{VM: "Work", NewDisk: api.NewDisk{Name: "more", Bytes: 1 << 20, Image: image(t, 'd', 5), Format: "raw"}}))
	if err := desk.engine.GrowDisk(ctx, api.GrowDisk{VM: "Work", Bytes: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := desk.on(v.ID, "disk1").WriteAt(bytes.Repeat([]byte{'g'}, 2<<20), 300*blockSize-(1<<20), true); err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.RemoveDisk(ctx, api.RemoveDisk{VM: "Work", Disk: "disk2"}); err != nil {
		t.Fatal(err)
	}
	if err := desk.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if c := desk.hv.config(); len(c.Disks) != 3 || c.Disks[0].Bytes != 8<<20 || c.Disks[1].ID != "disk3" || c.Disks[2].ID != "disk4" {
		t.Errorf("the guest has %+v", c.Disks)
	}
	desk.live("Work")
	take(t, laptop)
	if got, want := laptop.hv.config().Disks, 3; len(got) != want {
		t.Errorf("the guest has %+v at its new place", got)
	}
	holds(t, laptop.on(v.ID, "disk1"), 0, 'a')
	holds(t, laptop.on(v.ID, "disk1"), 300*blockSize, 'g')
	holds(t, laptop.on(v.ID, "photos"), 0, 'c')
	holds(t, laptop.on(v.ID, "more"), 0, 'd')
	holds(t, laptop.on(v.ID, "more"), 5*blockSize, 0)

	for name, err := range map[string]error{
		"growing one of a running VM":  laptop.engine.GrowDisk(ctx, api.GrowDisk{VM: "Work", Bytes: 1 << 30}),
		"removing one of a running VM": laptop.engine.RemoveDisk(ctx, api.RemoveDisk{VM: "Work", Disk: "photos"}),
	} {
		wantCode(t, name, err, api.CodeConflict)
	}
	laptop.suspend()
	wantCode(t, "growing one of a suspended VM", laptop.engine.GrowDisk(ctx, api.GrowDisk{VM: "Work", Bytes: 1 << 30}), api.CodeConflict)
	wantCode(t, "changing them from elsewhere", desk.engine.GrowDisk(ctx, api.GrowDisk{VM: "Work", Bytes: 1 << 30}), api.CodeElsewhere)
	if err := laptop.engine.StopVM(ctx, "Work", true); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "shrinking", laptop.engine.GrowDisk(ctx, api.GrowDisk{VM: "Work", Bytes: 1 << 20}), api.CodeUsage)
	wantCode(t, "removing the first", laptop.engine.RemoveDisk(ctx, api.RemoveDisk{VM: "Work", Disk: "disk1"}), api.CodeConflict)
	wantCode(t, "removing one twice", laptop.engine.RemoveDisk(ctx, api.RemoveDisk{VM: "Work", Disk: "disk2"}), api.CodeNotFound)
	if _, err := laptop.engine.AddDisk(ctx, api.AddDisk{VM: "Work"}); err == nil {
		t.Error("a disk without a size was made")
	}

	// A grown disk comes out as one image.
	file := filepath.Join(t.TempDir(), "out.raw")
	laptop.done(laptop.engine.ExportDisk(ctx, api.ExportDisk{Disk: "Work", File: file}))
	out, err := os.ReadFile(file)
	if err != nil || len(out) != 8<<20 || out[0] != 'a' || out[300*blockSize] != 'g' {
		t.Errorf("%d bytes: %v", len(out), err)
	}
	file = filepath.Join(t.TempDir(), "out2.raw")
	laptop.done(laptop.engine.ExportDisk(ctx, api.ExportDisk{Disk: "Work", Volume: "photos", File: file}))
	if out, err := os.ReadFile(file); err != nil || len(out) != 20*blockSize || out[0] != 'c' {
		t.Errorf("%d bytes: %v", len(out), err)
	}
}

// A disk that was never finished is nobody's, and is cleared away.
func TestADiskThatIsNeverFinished(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	missing := filepath.Join(t.TempDir(), "gone.raw")
	if err := os.WriteFile(missing, make([]byte, 8*blockSize), 0o600); err != nil {
		t.Fatal(err)
	}
	vm := d.engine.vm(v.ID)
	made, err := inspectDisk(t.Context(), api.NewDisk{Image: missing, Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(missing); err != nil {
		t.Fatal(err)
	}
	job, err := d.engine.startJob(api.Job{Kind: kindAddDisk, VM: v.ID, VMName: "Work"}, func(ctx context.Context, j *job) error {
		_, err := vm.addDisk(ctx, j, made)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	j := d.engine.job(job.ID)
	<-j.ended
	if s := j.snapshot(); s.Error == nil {
		t.Fatal("it was made of nothing")
	}
	table, err := vm.table()
	if err != nil || len(table.Volumes) != 2 || !table.Volumes[1].Removed {
		t.Fatalf("%+v, %v", table, err)
	}
	if w, _ := d.vm("Work"); len(w.Spec.Disks()) != 1 {
		t.Errorf("%+v", w.Spec)
	}
	if errors.Is(d.engine.StartVM(t.Context(), "Work"), nil) && len(d.hv.config().Disks) != 1 {
		t.Errorf("the guest has %+v", d.hv.config().Disks)
	}
}
