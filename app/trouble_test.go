package app

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// An I/O error of the disk goes to QEMU as an error, and the person is told of it until a check was clean: also after a
// restart, and rather than that the disk may be full.
func TestADiskInTroubleIsTold(t *testing.T) {
	a := newDevice(t, "desk")
	v := a.create("Work")
	if err := a.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	a.write(v.ID, 0, 'x')
	events, err := a.engine.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(a.engine.diskDir(v.ID), "base.raw")
	st, err := os.Stat(base)
	if err != nil {
		t.Fatal(err)
	}
	// As if the drive had lost it.
	if err := os.Truncate(base, 0); err != nil {
		t.Fatal(err)
	}
	err = disknbd.Backend{Disk: a.engine.vm(v.ID).currentDisk()}.ReadAt(make([]byte, blockSize), 0)
	if err == nil || errors.Is(err, nbd.ErrHangUp) {
		t.Fatalf("QEMU got %v", err)
	}
	if err := os.Truncate(base, st.Size()); err != nil {
		t.Fatal(err)
	}
	wanted := func(what string, p *api.Error) {
		t.Helper()
		if p == nil || p.Code != api.CodeDamaged || !strings.Contains(p.Next, "tagalong disk check") || !strings.Contains(p.Sentence, "Work") || p.Cause == "" {
			t.Fatalf("%s the person was told %+v", what, p)
		}
	}
	w, _ := a.vm("Work")
	wanted("afterwards", w.Problem)
	for e := range events {
		if e.Kind == "vm.problem" {
			if e.VM != v.ID || !strings.Contains(e.Text, "Work's disk on this device") {
				t.Fatalf("told %+v", e)
			}
			break
		}
	}
	a.hv.only().set(hypervisor.StateIOError)
	until(t, "the VM to stand still", func() bool { w, _ := a.vm("Work"); return w.State == api.VMPaused })
	w, _ = a.vm("Work")
	wanted("standing still", w.Problem)
	a.stop()
	a.start()
	w, _ = a.vm("Work")
	wanted("after a restart", w.Problem)
}
