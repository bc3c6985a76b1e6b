package app

import (
	"slices"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

func suspended(to string) api.SwitchVM {
	return api.SwitchVM{VM: "Work", To: to, Way: api.WaySuspend}
}

// carries fails unless the VM that is carried from one to the other ends up running there with its memory.
func carries(t *testing.T, from, to *device, memory []byte) {
	t.Helper()
	if s := to.ended("Work"); s.Phase != api.PhaseDone || s.Kind != kindCarried || s.Way != api.WaySuspend {
		t.Fatalf("at the taker: %+v", s)
	}
	to.goesOnWithItsMemory(memory)
	if s := from.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("at the giver: %+v", s)
	}
	if from.hv.only() != nil {
		t.Fatal("it runs at the giver too")
	}
	until(t, "the giver to have nothing under way", func() bool {
		v := from.engine.vm(from.only())
		_, err := from.engine.dir.Local(carryKey(v.id))
		return v.carried() == nil && err != nil
	})
	until(t, "the taker to have nothing under way", func() bool {
		v := to.engine.vm(to.only())
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.op == "" && !v.goesOn
	})
}

// only is the ID of the device's one VM.
func (d *device) only() string {
	v, _ := d.vm("Work")
	return v.ID
}

func TestAVMIsCarriedSuspended(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	memory := desk.hv.only().memory
	laptop.hv.memory = []byte("what a fresh guest has")
	desk.write(v.ID, 3, 's')
	first, err := laptop.engine.Switch(t.Context(), suspended(""))
	if err != nil {
		t.Fatal(err)
	}
	carries(t, desk, laptop, memory)
	if s := laptop.ended("Work"); s.ID != first.ID || s.Pause == 0 {
		t.Errorf("the switch that was begun as %s ended as %+v", first.ID, s)
	}
	if laptop.read(v.ID, 3) != 's' {
		t.Error("the disk isn't what it was")
	}
	// Sent from where it is, it goes as well.
	if _, err := laptop.engine.Switch(t.Context(), suspended("desk")); err != nil {
		t.Fatal(err)
	}
	carries(t, laptop, desk, memory)
	// One that is suspended already goes on there too, if that is asked for.
	desk.suspend()
	if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
		t.Fatal(err)
	}
	carries(t, desk, laptop, memory)
	until(t, "the history to tell how", func() bool {
		h, err := laptop.engine.History(t.Context(), "Work")
		if err != nil {
			t.Fatal(err)
		}
		// Of the last one all may have been there already when it was asked for.
		moved := slices.ContainsFunc(h, func(x api.HistoryEntry) bool { return x.How == "suspend" && x.Disk > 0 })
		last := h[len(h)-1]
		return moved && last.How == "suspend" && last.Pause > 0
	})
}

// blockFeed keeps what is written from coming to the other device, until the function that it returns is called.
func (d *device) blockFeed(other *device) func() {
	v := d.engine.vm(d.only())
	v.holdBack(other.engine.host.ID())
	return func() {
		v.holdBack("")
		v.syncFeeds()
	}
}

// What is asked for twice is done once.
func TestACarriedVMIsAskedForTwice(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	hold := make(chan struct{})
	desk.hv.setHoldSave(hold)
	memory := desk.hv.only().memory
	first, err := laptop.engine.Switch(t.Context(), suspended(""))
	if err != nil {
		t.Fatal(err)
	}
	again, err := laptop.engine.Switch(t.Context(), suspended(""))
	if err != nil || again.ID != first.ID {
		t.Fatalf("%+v, %v", again, err)
	}
	if err := laptop.engine.vm(laptop.only()).askOwnerTo(t.Context(), desk.engine.host.ID(), askCarry); err != nil {
		t.Fatal(err)
	}
	close(hold)
	carries(t, desk, laptop, memory)
}

// Called off on either side, the VM goes on where it was.
func TestACarriedVMIsCalledOff(t *testing.T) {
	for _, by := range []string{"desk", "laptop"} {
		t.Run(by, func(t *testing.T) {
			desk, laptop, _ := twoDevices(t)
			who := map[string]*device{"desk": desk, "laptop": laptop}[by]
			memory := desk.hv.only().memory
			off := func() {
				t.Helper()
				until(t, "the switch on "+by, func() bool { w, _ := who.vm("Work"); return w.Switch != nil && !w.Switch.Phase.Ended() })
				w, _ := who.vm("Work")
				if err := who.engine.CancelSwitch(t.Context(), w.Switch.ID); err != nil {
					t.Fatal(err)
				}
				for _, d := range []*device{desk, laptop} {
					if s := d.ended("Work"); s.Phase != api.PhaseCancelled {
						t.Fatalf("on %s: %+v", d.name, s)
					}
				}
				desk.goesOnWithItsMemory(memory)
				if laptop.hv.only() != nil {
					t.Fatal("it runs on the laptop")
				}
			}
			// While its memory is being saved.
			hold := make(chan struct{})
			desk.hv.setHoldSave(hold)
			if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
				t.Fatal(err)
			}
			until(t, "the memory to be saved", func() bool { return desk.hv.only().get() == hypervisor.StatePaused })
			off()
			close(hold)
			// While it is on its way.
			block := desk.blockFeed(laptop)
			if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
				t.Fatal(err)
			}
			until(t, "the memory to be on its way", func() bool { w, _ := desk.vm("Work"); return w.Switch.Phase == api.PhaseSend && desk.hv.only() == nil })
			off()
			block()
			if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
				t.Fatal(err)
			}
			carries(t, desk, laptop, memory)
		})
	}
}

// Whichever engine ends while a VM is carried, the VM goes on in one place, with its memory, and the person reads what became of it.
func TestAnEngineEndsWhileAVMIsCarried(t *testing.T) {
	for _, who := range []string{"desk", "laptop"} {
		t.Run(who+" while it is saved", func(t *testing.T) {
			desk, laptop, _ := twoDevices(t)
			d := map[string]*device{"desk": desk, "laptop": laptop}[who]
			memory := desk.hv.only().memory
			hold := make(chan struct{})
			desk.hv.setHoldSave(hold)
			if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
				t.Fatal(err)
			}
			until(t, "the memory to be saved", func() bool { return desk.hv.only().get() == hypervisor.StatePaused })
			d.stop()
			d.start()
			linked(t, desk, laptop)
			close(hold)
			if who == "laptop" {
				carries(t, desk, laptop, memory)
				return
			}
			desk.goesOnWithItsMemory(memory)
			if s := laptop.ended("Work"); s.Phase != api.PhaseFailed || s.Error == nil || s.Error.Next == "" {
				t.Fatalf("%+v", s)
			}
			if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
				t.Fatal(err)
			}
			carries(t, desk, laptop, memory)
		})
		t.Run(who+" while it is sent", func(t *testing.T) {
			desk, laptop, _ := twoDevices(t)
			d := map[string]*device{"desk": desk, "laptop": laptop}[who]
			memory := desk.hv.only().memory
			release := desk.blockFeed(laptop)
			if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
				t.Fatal(err)
			}
			until(t, "the memory to be on its way", func() bool { w, _ := desk.vm("Work"); return w.Switch.Phase == api.PhaseSend && desk.hv.only() == nil })
			d.stop()
			if who == "laptop" {
				until(t, "the desk to say that it waits", func() bool { w, _ := desk.vm("Work"); return w.Switch.Why != "" })
			}
			d.start()
			linked(t, desk, laptop)
			if who == "laptop" {
				release()
			}
			carries(t, desk, laptop, memory)
		})
	}
	t.Run("laptop while it is loaded", func(t *testing.T) {
		desk, laptop, _ := twoDevices(t)
		memory := desk.hv.only().memory
		hold := make(chan struct{})
		laptop.hv.setHold(hold)
		if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
			t.Fatal(err)
		}
		until(t, "the laptop to load it", func() bool {
			w, _ := laptop.vm("Work")
			return w.Here && w.Switch.Phase == api.PhaseResume && w.State != api.VMSwitching
		})
		laptop.stop()
		laptop.hv.setHold(nil)
		laptop.start()
		laptop.goesOnWithItsMemory(memory)
	})
}

// What keeps the VM from going on there is read there, also when the engine was started anew, and the VM stays suspended until it is resumed.
func TestACarriedVMThatCantGoOn(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	memory := desk.hv.only().memory
	broken := func(broken bool) {
		laptop.hv.mu.Lock()
		defer laptop.hv.mu.Unlock()
		laptop.hv.breakRestore = broken
	}
	broken(true)
	if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Phase != api.PhaseFailed || s.Error == nil || s.Error.Next == "" || s.Error.Remedy != api.RemedyResume {
		t.Fatalf("%+v", s)
	}
	stays := func() {
		t.Helper()
		until(t, "the laptop to say why it is suspended", func() bool {
			w, _ := laptop.vm("Work")
			return w.Here && w.State == api.VMSuspended && w.Problem != nil && w.Problem.Remedy == api.RemedyResume
		})
	}
	stays()
	laptop.stop()
	laptop.start()
	stays()
	broken(false)
	if err := laptop.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	laptop.goesOnWithItsMemory(memory)
	if w, _ := laptop.vm("Work"); w.Problem != nil {
		t.Errorf("it goes on, and has %+v", w.Problem)
	}
}

// A device without enough free memory for a VM that was carried there says so, and resumes it when there is and the person asks for it.
func TestACarriedVMFindsTooLittleMemory(t *testing.T) {
	desk, laptop, _ := twoDevicesAnd(t, func(laptop *device) { laptop.withFreeMemory(8 << 30) })
	memory := desk.hv.only().memory
	other := laptop.engine.vm(laptop.create("Play").ID)
	claim := func(bytes int64) {
		other.mu.Lock()
		other.claimed = bytes
		other.mu.Unlock()
	}
	claim(1 << 60)
	if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Phase != api.PhaseFailed || s.Error == nil || s.Error.Remedy != api.RemedyResume {
		t.Fatalf("%+v", s)
	}
	until(t, "the laptop to say what it lacks", func() bool {
		w, _ := laptop.vm("Work")
		return w.Here && w.State == api.VMSuspended && w.Problem != nil && w.Problem.Remedy == api.RemedyResume && strings.Contains(w.Problem.Sentence, "free memory")
	})
	if err := laptop.engine.ResumeVM(t.Context(), "Work"); err == nil {
		t.Fatal("it goes on without memory")
	}
	claim(0)
	if err := laptop.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	laptop.goesOnWithItsMemory(memory)
}

// Resumed where it is before it was handed over, it stays there.
func TestACarriedVMIsResumed(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	memory := desk.hv.only().memory
	desk.blockFeed(laptop)
	if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to be on its way", func() bool { w, _ := desk.vm("Work"); return w.Switch.Phase == api.PhaseSend && desk.hv.only() == nil })
	if err := desk.engine.ResumeVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.goesOnWithItsMemory(memory)
	for _, d := range []*device{desk, laptop} {
		if s := d.ended("Work"); s.Phase != api.PhaseCancelled {
			t.Errorf("on %s: %+v", d.name, s)
		}
	}
}

// One that is stopped is only handed over.
func TestAStoppedVMIsntCarried(t *testing.T) {
	desk, laptop, _ := twoDevices(t)
	if err := desk.engine.StopVM(t.Context(), "Work", true); err != nil {
		t.Fatal(err)
	}
	if _, err := laptop.engine.Switch(t.Context(), suspended("")); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	if w, _ := laptop.vm("Work"); !w.Here || w.State != api.VMStopped {
		t.Fatalf("it is %s", w.State)
	}
}

// A device whose copy has the memory of a VM that is to go on there knows so, also when its engine was started anew.
func TestADeviceKnowsWhatComesSuspended(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	if laptop.engine.vm(v.ID).comesSuspended() {
		t.Error("a VM that runs is said to come suspended")
	}
	desk.suspend()
	c := carryRun{v: desk.engine.vm(v.ID), to: laptop.engine.host.ID()}
	if err := c.destine(); err != nil {
		t.Fatal(err)
	}
	until(t, "the memory to have come", func() bool { return laptop.engine.vm(v.ID).memoryCame() && laptop.engine.vm(v.ID).comesSuspended() })
	laptop.stop()
	laptop.start()
	if !laptop.engine.vm(v.ID).comesSuspended() {
		t.Error("an engine that was started anew doesn't know")
	}
}
