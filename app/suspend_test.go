package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// goesOnWithItsMemory waits until the one guest runs, and looks whether it is the one that was suspended.
func (d *device) goesOnWithItsMemory(memory []byte) {
	d.t.Helper()
	until(d.t, "the guest on "+d.name, func() bool { g := d.hv.only(); return g != nil && g.get() == hypervisor.StateRunning })
	if g := d.hv.only(); !bytes.Equal(g.memory, memory) {
		d.t.Fatalf("it goes on with %d bytes that aren't its memory", len(g.memory))
	}
	until(d.t, "the VM to be shown as running", func() bool { v, _ := d.vm("Work"); return v.State == api.VMRunning })
}

// suspend suspends it, and sees that nothing is left of the guest but its memory.
func (d *device) suspend() {
	d.t.Helper()
	if err := d.engine.SuspendVM(d.t.Context(), "Work"); err != nil {
		d.t.Fatal(err)
	}
	if v, _ := d.vm("Work"); v.State != api.VMSuspended || d.hv.only() != nil {
		d.t.Fatalf("after it was suspended it is %s", v.State)
	}
}

func TestASuspendedVMIsResumedAnywhere(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	memory := desk.hv.only().memory
	laptop.hv.memory = []byte("what a fresh guest has")
	desk.write(v.ID, 3, 's')
	for _, way := range [][2]*device{{desk, laptop}, {laptop, desk}} {
		from, to := way[0], way[1]
		from.suspend()
		if _, err := to.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
			t.Fatal(err)
		}
		for _, d := range []*device{to, from} {
			if s := d.ended("Work"); s.Phase != api.PhaseDone {
				t.Fatalf("%s: %+v", d.name, s)
			}
		}
		until(t, "the suspended VM on "+to.name, func() bool { w, _ := to.vm("Work"); return w.Here && w.State == api.VMSuspended })
		if err := to.engine.ResumeVM(t.Context(), "Work"); err != nil {
			t.Fatal(err)
		}
		to.goesOnWithItsMemory(memory)
		if to.read(v.ID, 3) != 's' {
			t.Error("the disk isn't what it was")
		}
		// Used up, it is never loaded again.
		if err := to.engine.StopVM(t.Context(), "Work", true); err != nil {
			t.Fatal(err)
		}
		if w, _ := to.vm("Work"); w.State != api.VMStopped {
			t.Fatalf("after its plug was pulled it is %s", w.State)
		}
		to.hv.memory = memory
		if err := to.engine.StartVM(t.Context(), "Work"); err != nil {
			t.Fatal(err)
		}
		to.live("Work")
	}
	table, err := desk.engine.vm(v.ID).table()
	if err != nil || len(table.Volumes) != 2 {
		t.Errorf("each suspension took place of its own: %+v, %v", table, err)
	}
}

// What of the memory isn't here yet is fetched when it is resumed.
func TestResumeOntoHalfACopy(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	halfSynced(t, desk, laptop, v.ID, 64)
	desk.suspend()
	memory := desk.hv.memory
	gate := valveOn(desk)
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	done := make(chan error, 1)
	go func() { done <- laptop.engine.ResumeVM(context.WithoutCancel(t.Context()), "Work") }()
	gate.release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	laptop.goesOnWithItsMemory(memory)
	laptop.untilWhole()
	if laptop.read(v.ID, 5) != 2 {
		t.Error("the disk isn't what it must be")
	}
}

// A guest that an engine finds beside its saved memory was about to end, or hadn't begun to go on.
func TestACrashWhileSuspending(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	memory := d.hv.only().memory
	d.suspend()
	// As after a crash before the hypervisor was ended.
	c, err := d.engine.vm(v.ID).config()
	if err != nil {
		t.Fatal(err)
	}
	d.stop()
	d.hv.add(c, hypervisor.StatePaused, memory)
	d.start()
	until(t, "the suspended VM", func() bool { w, _ := d.vm("Work"); return w.State == api.VMSuspended && d.hv.only() == nil })
	if err := d.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	d.goesOnWithItsMemory(memory)

	// Before the header, it goes on.
	d.hv.only().set(hypervisor.StatePaused)
	w, _, err := d.engine.vm(v.ID).memoryVolume()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(bytes.Repeat([]byte{'h'}, 1<<20), blockSize, false); err != nil {
		t.Fatal(err)
	}
	d.stop()
	d.start()
	d.goesOnWithItsMemory(memory)
	if w, _, err = d.engine.vm(v.ID).memoryVolume(); err != nil {
		t.Fatal(err)
	}
	if list, err := w.Extents(0, 2<<20); err != nil || !list[0].Hole || list[0].Len != 2<<20 {
		t.Errorf("what was half saved still takes space: %+v, %v", list, err)
	}
}

func TestCancelledSuspension(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	d.hv.setHoldSave(hold)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.engine.SuspendVM(ctx, "Work") }()
	until(t, "the guest to stand still", func() bool { return d.hv.only().get() == hypervisor.StatePaused })
	cancel()
	var e *api.Error
	if err := <-done; !errors.As(err, &e) || e.Code != api.CodeCancelled || !strings.Contains(e.Sentence, "goes on") {
		t.Errorf("%v", err)
	}
	d.goesOnWithItsMemory(d.hv.memory)
	s, err := d.engine.vm(v.ID).lookSaved()
	if err != nil || s.there() {
		t.Errorf("%+v, %v", s, err)
	}
	// By its job, too.
	go func() { done <- d.engine.SuspendVM(t.Context(), "Work") }()
	var id string
	until(t, "the job", func() bool {
		st, err := d.engine.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range st.Jobs {
			if j.Kind == kindSuspend && !j.Done {
				id = j.ID
			}
		}
		return id != "" && d.hv.only().get() == hypervisor.StatePaused
	})
	if err := d.engine.CancelJob(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.As(err, &e) || e.Code != api.CodeCancelled {
		t.Errorf("%v", err)
	}
	d.goesOnWithItsMemory(d.hv.memory)
	close(hold)
	d.suspend()
}

// Nothing starts without the memory unasked.
func TestUnusableMemoryIsTheirChoice(t *testing.T) {
	d := newDevice(t, "desk")
	v := d.create("Work")
	d.write(v.ID, 2, 'w')
	for name, harm := range map[string]func(){
		"damaged": func() {
			w, _, err := d.engine.vm(v.ID).memoryVolume()
			if err == nil {
				err = w.WriteAt([]byte{1, 2, 3, 4}, blockSize+100, true)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"other hardware": func() {
			if err := d.engine.vm(v.ID).putSpec("cpus", 7); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
			t.Fatal(name, err)
		}
		d.suspend()
		harm()
		for _, again := range []func(context.Context, string) error{d.engine.ResumeVM, d.engine.StartVM} {
			var e *api.Error
			if err := again(t.Context(), "Work"); !errors.As(err, &e) || e.Code != api.CodeConflict || !strings.Contains(e.Next, "stop --force") || d.hv.only() != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if w, _ := d.vm("Work"); w.State != api.VMSuspended {
			t.Errorf("%s: it is %s", name, w.State)
		}
		if err := d.engine.StopVM(t.Context(), "Work", true); err != nil {
			t.Fatal(err)
		}
		if w, _ := d.vm("Work"); w.State != api.VMStopped || d.read(v.ID, 2) != 'w' {
			t.Errorf("%s: without its memory it is %s", name, w.State)
		}
	}
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
}

// A memory that an earlier version has saved, in a file, can be resumed where it is.
func TestMemoryOfAnEarlierVersion(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	desk.write(v.ID, 1, 'o')
	desk.live("Work")
	vm := desk.engine.vm(v.ID)
	memory := bytes.Repeat([]byte("an earlier version's "), 999)
	pos := vm.currentDisk().Info().Position
	sum := blake3.Sum256(memory)
	note, err := json.Marshal(map[string]any{"version": 1, "term": pos.Term, "barrier": pos.Barrier, "bytes": len(memory), "blake3": fmt.Sprintf("%x", sum)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(vm.oldMemoryFile(), memory, 0o600), os.WriteFile(vm.oldMemoryNote(), note, 0o600)); err != nil {
		t.Fatal(err)
	}
	desk.stop()
	desk.start()
	linked(t, desk, laptop)
	until(t, "the suspended VM", func() bool {
		w, _ := desk.vm("Work")
		return w.State == api.VMSuspended && desk.engine.vm(v.ID).currentDisk().Info().Active
	})
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Error == nil || s.Error.Code != api.CodeConflict || !strings.Contains(s.Error.Sentence, "earlier version") {
		t.Errorf("%+v", s)
	}
	if err := desk.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.goesOnWithItsMemory(memory)
	if desk.engine.vm(v.ID).oldMemory() {
		t.Error("it could be loaded again")
	}
}
