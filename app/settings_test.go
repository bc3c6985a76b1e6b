package app

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/qemu"
	"tagalong.org/tagalong/directory"
)

// TestAVMIsRenamedFromAnywhere: by its owner while it runs, and by a device that asks the owner; everybody hears of it, and it can be
// switched under its new name.
func TestAVMIsRenamedFromAnywhere(t *testing.T) {
	a, b, v := twoDevices(t)
	ctx := t.Context()
	if err := a.engine.SetVM(ctx, api.SetVM{VM: "Work", Name: "Office"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the new name to be known", func() bool { _, ok := b.vm("Office"); return ok })
	if err := b.engine.SetVM(ctx, api.SetVM{VM: "Office", Name: "Büro"}); err != nil {
		t.Fatal(err)
	}
	if now, ok := a.vm("Büro"); !ok || now.ID != v.ID || now.State != api.VMRunning {
		t.Fatalf("%+v", now)
	}
	until(t, "the newest name to be known", func() bool { _, ok := b.vm("Büro"); return ok })
	a.create("Play")
	wantCode(t, "a name that is taken", b.engine.SetVM(ctx, api.SetVM{VM: "Büro", Name: "Play"}), api.CodeConflict)
	wantCode(t, "no name", a.engine.SetVM(ctx, api.SetVM{VM: "Büro", Name: " "}), api.CodeUsage)
	if err := a.engine.SetVM(ctx, api.SetVM{VM: "Büro", Name: "Büro"}); err != nil {
		t.Errorf("the name that it has: %v", err)
	}
	if _, err := b.engine.Switch(ctx, api.SwitchVM{VM: "Büro"}); err != nil {
		t.Fatal(err)
	}
	if s := b.ended("Büro"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
}

// TestARenameWaitsForNobody: without the owner it is refused, with a word on where the VM is.
func TestARenameWaitsForNobody(t *testing.T) {
	a, b, _ := twoDevices(t)
	a.stop()
	until(t, "the owner to be gone", func() bool { return !b.engine.linked(a.engine.host.ID()) })
	wantCode(t, "renaming without the owner", b.engine.SetVM(t.Context(), api.SetVM{VM: "Work", Name: "Office"}), api.CodeElsewhere)
	wantCode(t, "setting it without the owner", b.engine.SetVM(t.Context(), api.SetVM{VM: "Work", Sync: api.SyncTwo}), api.CodeElsewhere)
	if v, ok := b.vm("Work"); !ok || v.Spec.Two() {
		t.Errorf("it was changed: %+v", v)
	}
}

func TestMemoryAndCPUsChangeWhileItIsStopped(t *testing.T) {
	d := newDevice(t, "desk")
	ctx := t.Context()
	d.create("Work")
	if err := d.engine.SetVM(ctx, api.SetVM{VM: "Work", Sync: api.SyncTwo}); err != nil {
		t.Fatal(err)
	}
	if err := d.engine.SetVM(ctx, api.SetVM{VM: "Work", MemoryMiB: 128, CPUs: 3}); err != nil {
		t.Fatal(err)
	}
	v, _ := d.vm("Work")
	if v.Spec.MemoryKiB != qemu.EvenMemory(128<<10) || v.Spec.CPUs != 3 || v.Spec.Sync != api.SyncTwo || v.Spec.DiskBytes != testDisk {
		t.Errorf("%+v", v.Spec)
	}
	if v.Spec.MemoryKiB%256 == 0 {
		t.Error("QEMU may corrupt that memory when it moves")
	}
	for what, req := range map[string]api.SetVM{
		"too little memory": {VM: "Work", MemoryMiB: 1}, "too much": {VM: "Work", MemoryMiB: maxMemoryMiB + 1},
		"no CPUs": {VM: "Work", CPUs: -1}, "too many": {VM: "Work", CPUs: maxCPUs + 1},
	} {
		wantCode(t, what, d.engine.SetVM(ctx, req), api.CodeUsage)
	}
	if totalMemory() != 0 {
		wantCode(t, "more than the device has", d.engine.SetVM(ctx, api.SetVM{VM: "Work", MemoryMiB: maxMemoryMiB}), api.CodeConflict)
	}
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if c := d.hv.config(); c.CPUs != 3 || c.MemoryKiB != v.Spec.MemoryKiB {
		t.Errorf("it was started with %+v", c)
	}
	until(t, "its processors to be left alone", func() bool { return d.engine.processorsServed() == 3 })
	wantCode(t, "changing it while it runs", d.engine.SetVM(ctx, api.SetVM{VM: "Work", CPUs: 2}), api.CodeConflict)
	if err := d.engine.SuspendVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	until(t, "nothing to be left alone", func() bool { return d.engine.processorsServed() == 0 })
	wantCode(t, "changing it while it is suspended", d.engine.SetVM(ctx, api.SetVM{VM: "Work", CPUs: 2}), api.CodeConflict)
}

// TestAGuestThatDoesNotShutDown: the person is asked, the VM goes on until they have answered, and "at once" needn't wait for the end of
// the asking.
func TestAGuestThatDoesNotShutDown(t *testing.T) {
	d := newDevice(t, "desk")
	ctx := t.Context()
	d.create("Work")
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	until(t, "it to run", func() bool { v, _ := d.vm("Work"); return v.State == api.VMRunning })
	g := d.hv.only()
	g.setDeaf()
	d.engine.powerDown = time.Millisecond
	err := d.engine.StopVM(ctx, "Work", false)
	wantCode(t, "stopping a guest that doesn't heed", err, api.CodeUnanswered)
	if !strings.Contains(api.AsError(err).Next, "--force") {
		t.Errorf("the person isn't told what to do: %v", err)
	}
	if v, _ := d.vm("Work"); v.State != api.VMRunning || g.gone() {
		t.Fatalf("%+v", v.State)
	}
	d.engine.powerDown = time.Hour
	stopped := make(chan error, 1)
	go func() { stopped <- d.engine.StopVM(ctx, "Work", false) }()
	until(t, "the guest to be asked", func() bool { v, _ := d.vm("Work"); return v.State == api.VMStopping })
	wantCode(t, "asking twice", d.engine.StopVM(ctx, "Work", false), api.CodeBusy)
	if err := d.engine.StopVM(ctx, "Work", true); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("who waited: %v", err)
	}
	until(t, "it to be stopped", func() bool { v, _ := d.vm("Work"); return v.State == api.VMStopped })
}

func TestReset(t *testing.T) {
	d := newDevice(t, "desk")
	ctx := t.Context()
	d.create("Work")
	wantCode(t, "resetting a stopped VM", d.engine.ResetVM(ctx, "Work"), api.CodeConflict)
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	g := d.hv.only()
	for _, state := range []hypervisor.State{hypervisor.StateRunning, hypervisor.StateFailed} {
		g.set(state)
		if err := d.engine.ResetVM(ctx, "Work"); err != nil {
			t.Fatal(err)
		}
	}
	if v, _ := d.vm("Work"); g.resets != 2 || v.State != api.VMRunning {
		t.Errorf("%d resets, %s", g.resets, v.State)
	}
	g.set(hypervisor.StateIOError)
	wantCode(t, "resetting a VM that stands still", d.engine.ResetVM(ctx, "Work"), api.CodeConflict)
}

// TestNothingStaysOfARemovedVM: neither files nor notes, on no device.
func TestNothingStaysOfARemovedVM(t *testing.T) {
	a, b, v := twoDevices(t)
	if err := a.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	keys := []string{scrubKey(v.ID), damageKey(v.ID), repairedKey(v.ID), sourceKey(v.ID), unwanted(v.ID), carryKey(v.ID)}
	for _, d := range []*device{a, b} {
		for _, key := range keys {
			if err := d.engine.dir.SetLocal(key, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.stop()
	if err := a.engine.RemoveVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	b.start() // it was away, and hears of it
	for _, d := range []*device{a, b} {
		until(t, "nothing to be left on "+d.name, func() bool {
			for _, key := range keys {
				if _, err := d.engine.dir.Local(key); !errors.Is(err, directory.ErrNotFound) {
					return false
				}
			}
			_, err := d.engine.dir.LoadBaton(v.ID)
			return errors.Is(err, directory.ErrNotFound) && errors.Is(missing(d.engine.vmDir(v.ID)), fs.ErrNotExist)
		})
	}
}

// TestARecordBeingWrittenDoesntBringARemovedVMBack: the owner writes its record by itself, and may be about to when the VM is removed.
func TestARecordBeingWrittenDoesntBringARemovedVMBack(t *testing.T) {
	d := newDevice(t, "desk")
	id := d.create("Work").ID
	v := d.engine.vm(id)
	v.saving.Lock()
	r, _ := v.record()
	removed := make(chan error, 1)
	go func() { removed <- d.engine.RemoveVM(t.Context(), "Work") }()
	time.Sleep(100 * time.Millisecond) // long enough for a removal that doesn't wait
	err := d.engine.dir.PutVM(r)
	v.saving.Unlock()
	if err := errors.Join(err, <-removed); err != nil {
		t.Fatal(err)
	}
	if !d.engine.dir.Removed(id) {
		t.Error("the VM's record is back")
	}
}

// missing is why a path can't be looked at.
func missing(path string) error {
	_, err := os.Lstat(path)
	return err
}
