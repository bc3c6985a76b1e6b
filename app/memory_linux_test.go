package app

import (
	"testing"

	"tagalong.org/tagalong/app/api"
)

// TestSeveralVMsAreCountedTogether: what one was promised another can't have.
func TestSeveralVMsAreCountedTogether(t *testing.T) {
	if freeMemory() == 0 {
		t.Fatal("Linux doesn't say how much memory is free")
	}
	d := newDevice(t, "desk")
	d.withFreeMemory(8 << 30)
	ctx := t.Context()
	work, play := d.create("Work"), d.create("Play")
	if err := d.engine.StartVM(ctx, "Work"); err != nil {
		t.Fatal(err)
	}
	if err := d.engine.StartVM(ctx, "Play"); err != nil {
		t.Fatal(err)
	}
	if err := d.engine.StopVM(ctx, "Work", false); err != nil {
		t.Fatal(err)
	}
	until(t, "the other one to go on", func() bool { v, _ := d.vm("Play"); return v.State == api.VMRunning })
	if err := d.engine.StopVM(ctx, "Play", true); err != nil {
		t.Fatal(err)
	}
	// One is about to start and has been promised nearly all there is.
	if err := d.engine.vm(work.ID).admit(d.engine.free() - 32<<20); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "starting the other one", d.engine.StartVM(ctx, "Play"), api.CodeConflict)
	if left := d.engine.vm(play.ID).ask().Taker.FreeMemory; left < 1 || left > 64<<20 {
		t.Errorf("another device is told of %d bytes", left)
	}
	d.engine.vm(work.ID).admitted()
	if err := d.engine.StartVM(ctx, "Play"); err != nil {
		t.Error(err)
	}
}
