package app

import (
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
