package app

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"tagalong.org/tagalong/app/api"
)

// finished waits until a job has ended.
func (d *device) finished(id string) api.Job {
	d.t.Helper()
	var found api.Job
	until(d.t, "the job to end", func() bool {
		s, err := d.engine.Status(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		for _, j := range s.Jobs {
			if j.ID == id {
				found = j
			}
		}
		return found.Done
	})
	return found
}

// count writes rising numbers into the first and then the last block, until stop is closed; ended is closed after that.
func (d *device) count(id string) (stop, ended chan struct{}) {
	disk := d.engine.vm(id).currentDisk()
	stop, ended = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := uint64(1); ; n++ {
			block := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), blockSize/8)
			for _, at := range []int64{0, testDisk - blockSize} {
				if err := disk.WriteAt(block, at, at > 0); err != nil {
					d.t.Error(err)
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	return stop, ended
}

// number reads what count wrote.
func number(t *testing.T, disk []byte, at int64) uint64 {
	t.Helper()
	block := disk[at : at+blockSize]
	if !bytes.Equal(block, bytes.Repeat(block[:8], blockSize/8)) {
		t.Fatalf("the block at %d is a mixture", at)
	}
	return binary.LittleEndian.Uint64(block)
}

func TestExportsWhileTheGuestWrites(t *testing.T) {
	owner, other, v := twoDevices(t)
	for b := int64(1); b < testDisk/blockSize-1; b++ {
		owner.write(v.ID, b, byte(b))
	}
	owner.live("Work")
	stop, ended := owner.count(v.ID)
	dir := t.TempDir()
	for _, d := range []*device{owner, other} {
		file := filepath.Join(dir, d.name+".raw")
		// So slow that the numbers at both ends would drift apart if they were read as they are, and that it goes on when the second is asked for.
		req := api.ExportDisk{Disk: "Work", File: file, Rate: 1 << 20}
		job, err := d.engine.ExportDisk(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.engine.ExportDisk(t.Context(), req); err == nil {
			t.Error("two exports of one disk at once")
		} else {
			wantCode(t, "a second export", err, api.CodeBusy)
		}
		done := d.finished(job.ID)
		if done.Error != nil || done.Export == nil || done.Export.File != file || done.Export.Position.Term != 1 || done.Export.Position.Barrier == 0 || done.Bytes != testDisk {
			t.Fatalf("%s: %+v", d.name, done)
		}
		got, err := os.ReadFile(file)
		if err != nil || len(got) != testDisk {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		first, last := number(t, got, 0), number(t, got, testDisk-blockSize)
		if first != last && first != last+1 {
			t.Errorf("%s: the copy is of no moment: %d and %d", d.name, first, last)
		}
		for b := int64(1); b < testDisk/blockSize-1; b++ {
			if !bytes.Equal(got[b*blockSize:(b+1)*blockSize], bytes.Repeat([]byte{byte(b)}, blockSize)) {
				t.Fatalf("%s: block %d differs", d.name, b)
			}
		}
		_, err = d.engine.ExportDisk(t.Context(), req)
		wantCode(t, "a file that is there", err, api.CodeConflict)
	}
	close(stop)
	<-ended
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestACancelledExportLeavesNothing(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	// More than what a limited export copies before it is held back.
	for block := range int64(testDisk / blockSize) {
		d.write(v.ID, block, 'x')
	}
	dir := t.TempDir()
	job, err := d.engine.ExportDisk(t.Context(), api.ExportDisk{Disk: v.ID, File: filepath.Join(dir, "x.raw"), Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.engine.CancelJob(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if done := d.finished(job.ID); done.Error == nil || done.Error.Code != api.CodeCancelled {
		t.Errorf("%+v", done)
	}
	// The engine's end cancels too, and waits.
	if _, err := d.engine.ExportDisk(t.Context(), api.ExportDisk{Disk: v.ID, File: filepath.Join(dir, "y.raw"), Rate: 1}); err != nil {
		t.Fatal(err)
	}
	d.stop()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestDisksAreFoundByNameAndPlace(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	d.write(v.ID, 3, 'x')
	dir := d.engine.vm(v.ID).diskDir()
	for _, name := range []string{"Work", v.ID, dir, dir + "/../disk"} {
		info, err := d.engine.DiskInfo(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if info.Dir != dir || info.VM != v.ID || info.VMName != "Work" || info.Size != testDisk || info.Role != api.DiskOwner || !info.Active || info.Position.Term != 1 {
			t.Errorf("%s: %+v", name, info)
		}
	}
	_, err := d.engine.DiskInfo(t.Context(), "Play")
	wantCode(t, "no such VM", err, api.CodeNotFound)
	_, err = d.engine.DiskInfo(t.Context(), t.TempDir())
	wantCode(t, "no such disk", err, api.CodeNotFound)
	_, err = d.engine.ExportDisk(t.Context(), api.ExportDisk{Disk: "Work", File: "x.raw"})
	wantCode(t, "a relative path", err, api.CodeUsage)
}

func TestACheckOfAnOpenDisk(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	d.write(v.ID, 3, 'x')
	check := func(record bool) *api.DiskCheck {
		t.Helper()
		job, err := d.engine.CheckDisk(t.Context(), api.CheckDisk{Disk: "Work", Record: record})
		if err != nil {
			t.Fatal(err)
		}
		done := d.finished(job.ID)
		if done.Error != nil || done.Check == nil {
			t.Fatalf("%+v", done)
		}
		return done.Check
	}
	if c := check(true); !c.Clean || c.Verified != 0 {
		t.Errorf("%+v", c)
	}
	// A restart empties the log of what was written lately, so the content counts as quiet.
	d.stop()
	d.start()
	if c := check(true); !c.Clean || c.Recorded == 0 {
		t.Errorf("%+v", c)
	}
	if c := check(false); !c.Clean || c.Verified == 0 {
		t.Errorf("%+v", c)
	}
	base, err := os.OpenFile(filepath.Join(d.engine.vm(v.ID).diskDir(), "base.raw"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	if _, err := base.WriteAt([]byte{'y'}, 3*blockSize+17); err != nil {
		t.Fatal(err)
	}
	if c := check(false); c.Clean || len(c.Damaged) != 1 || c.Damaged[0].Off > 3*blockSize || c.Damaged[0].Off+c.Damaged[0].Len <= 3*blockSize {
		t.Errorf("%+v", c)
	}
}
