package app

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
)

func (d *device) status() *api.Status {
	d.t.Helper()
	s, err := d.engine.Status(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// offline asks for the mode.
func (d *device) goOffline(req api.GoOffline) *api.Job {
	d.t.Helper()
	j, err := d.engine.GoOffline(d.t.Context(), req)
	if err != nil {
		d.t.Fatal(err)
	}
	return j
}

// jobEnded waits until a job has, and returns it.
func (d *device) jobEnded(id string) api.Job {
	d.t.Helper()
	j := d.engine.job(id)
	if j == nil {
		d.t.Fatal("the job is unknown")
	}
	<-j.ended
	return j.snapshot()
}

// event waits until there was an event of a kind, and returns the last.
func (d *device) event(kind string) (last api.Event) {
	d.t.Helper()
	until(d.t, "an event "+kind+" on "+d.name, func() bool {
		d.engine.hub.mu.Lock()
		defer d.engine.hub.mu.Unlock()
		for i := len(d.engine.hub.kept) - 1; i >= 0; i-- {
			if last = d.engine.hub.kept[i]; last.Kind == kind {
				return true
			}
		}
		return false
	})
	return last
}

func wantText(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s: %q doesn't say %q", what, text, w)
		}
	}
}

func TestAFleetOfOneGoesOfflineAtOnce(t *testing.T) {
	d := newDevice(t, "laptop")
	d.create("Work")
	if j := d.jobEnded(d.goOffline(api.GoOffline{}).ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	check := func() {
		t.Helper()
		s := d.status()
		if !s.Offline.On || s.Offline.Since.IsZero() || !s.Device.Offline || s.Offline.Job != "" || len(s.Offline.Unaware) != 0 {
			t.Errorf("%+v", s.Offline)
		}
		if v := s.Offline.VMs; len(v) != 1 || !v[0].Taken || v[0].Missing == nil || *v[0].Missing != 0 {
			t.Errorf("%+v", v)
		}
	}
	check()
	_, err := d.engine.GoOffline(t.Context(), api.GoOffline{})
	wantCode(t, "going twice", err, api.CodeConflict)
	since := d.status().Offline.Since
	d.stop()
	d.start()
	until(t, "the disk to be active", func() bool { v, _ := d.vm("Work"); return d.engine.vm(v.ID).currentDisk().Info().Active })
	check()
	if !d.status().Offline.Since.Equal(since) {
		t.Error("a restart changed since when")
	}
	if err := d.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Error(err)
	}
	for range 2 { // the second does nothing
		if err := d.engine.GoOnline(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := d.status(); s.Offline.On || s.Device.Offline {
		t.Errorf("%+v", s.Offline)
	}
}

func TestGoingOfflineTakesTheVMAlongAndTells(t *testing.T) {
	a, b, v := twoDevices(t)
	a.write(v.ID, 3, 'q')
	until(t, "the VM to be known", func() bool { _, ok := b.vm("Work"); return ok })
	j := b.jobEnded(b.goOffline(api.GoOffline{}).ID)
	if j.Error != nil || j.Total < int64(len(a.hv.memory)) || j.Bytes != j.Total {
		t.Fatalf("%+v", j)
	}
	if g := b.hv.only(); g == nil || g.get() != hypervisor.StateRunning {
		t.Fatal("the guest doesn't run on the device that left")
	}
	if got := b.read(v.ID, 3); got != 'q' {
		t.Errorf("it reads %q", got)
	}
	if s := b.status().Offline; !s.On || len(s.Unaware) != 0 || !s.VMs[0].Taken {
		t.Fatalf("%+v", s)
	}
	wantText(t, "the word at the end", b.event("offline.on").Text, "Work comes along", "still get every change")
	// Who was connected has heard of it before the job ended.
	s := a.status()
	if !s.VMs[0].Offline || s.VMs[0].OfflineSince.IsZero() || !s.Devices[0].Offline {
		t.Errorf("the other device doesn't know: %+v, %+v", s.VMs[0], s.Devices[0])
	}
	b.live("Work")
	b.stop()
	until(t, "the link to be gone", func() bool { return !a.engine.linked(b.engine.host.ID()) })
	_, err := a.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
	wantCode(t, "a switch from a device that is away", err, api.CodeUnreachable)
	wantText(t, "the refusal", api.AsError(err).Error(), "laptop took Work along", "offline since", "--force")
	err = a.engine.StartVM(t.Context(), "Work")
	wantCode(t, "starting it at home", err, api.CodeElsewhere)
	wantText(t, "the refusal", api.AsError(err).Error(), "laptop took Work along")
	_, err = a.engine.GoOffline(t.Context(), api.GoOffline{})
	wantCode(t, "going with a VM that is away", err, api.CodeUnreachable)
	wantText(t, "the refusal", api.AsError(err).Error(), "laptop took Work along", "Only a copy", "--now")
	// Back again, still in the mode, it agrees to an ordinary switch.
	b.start()
	linked(t, a, b)
	if !b.status().Offline.On {
		t.Error("the restart ended the mode")
	}
	if _, err := a.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := a.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	if v, _ := a.vm("Work"); v.Offline {
		t.Error("at home again, it is still called away")
	}
	if err := b.engine.GoOnline(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the others to know that it is back", func() bool { return !a.status().Devices[0].Offline })
}

func TestGoingNowSaysWhatIsMissing(t *testing.T) {
	for name, req := range map[string]api.GoOffline{"now": {Now: true}, "copy only": {CopyOnly: true}} {
		t.Run(name, func(t *testing.T) {
			a, b, v := twoDevices(t)
			hold := make(chan struct{})
			b.hv.setHold(hold)
			defer close(hold)
			until(t, "what the owner says of the copy", func() bool {
				s := b.status().Offline
				return len(s.VMs) == 1 && s.VMs[0].Missing != nil && s.VMs[0].Position.Term == 1
			})
			if j := b.jobEnded(b.goOffline(req).ID); j.Error != nil {
				t.Fatal(j.Error)
			}
			s := b.status().Offline
			if !s.On || len(s.VMs) != 1 || s.VMs[0].Taken || s.VMs[0].OwnerName != "desk" {
				t.Fatalf("%+v", s)
			}
			wantText(t, "the word at the end", b.event("offline.on").Text, "only has a copy of Work (position 1/", "must not be started", "desk")
			err := b.engine.StartVM(t.Context(), "Work")
			wantCode(t, "starting a copy", err, api.CodeElsewhere)
			wantText(t, "the refusal", api.AsError(err).Error(), "only a copy of Work", "position 1/", "must not be started", "desk")
			// Nothing was taken from the owner, and what it writes still arrives.
			if g := a.hv.only(); g.get() != hypervisor.StateRunning {
				t.Errorf("the owner's guest is %s", g.get())
			}
			a.write(v.ID, 9, 'r')
			a.live("Work")
		})
	}
}

// heldPreparation is a fleet of two whose second device wants to go offline, in the middle of the switch to it.
func heldPreparation(t *testing.T) (a, b *device, v api.VM, j *api.Job, hold chan struct{}) {
	t.Helper()
	a, b, v = twoDevices(t)
	until(t, "the VM to be known", func() bool { _, ok := b.vm("Work"); return ok })
	hold = make(chan struct{})
	b.hv.setHold(hold)
	j = b.goOffline(api.GoOffline{VMs: []string{"Work"}})
	until(t, "the switch to begin", func() bool { v, _ := b.vm("Work"); return v.Switch != nil && !v.Switch.Phase.Ended() })
	if s := b.status().Offline; s.On || s.Job != j.ID {
		t.Fatalf("%+v", s)
	}
	return a, b, v, j, hold
}

func TestAPreparationSurvivesARestart(t *testing.T) {
	a, b, v, _, hold := heldPreparation(t)
	b.stop()
	close(hold)
	b.start()
	until(t, "the mode", func() bool { s := b.status().Offline; return s.On && s.Job == "" })
	if s := b.status().Offline; !s.VMs[0].Taken || s.Job != "" {
		t.Errorf("%+v", s)
	}
	until(t, "the guest to run there", func() bool { g := b.hv.only(); return g != nil && g.get() == hypervisor.StateRunning })
	if g := a.hv.only(); g != nil && g.runs > 0 && g.get() == hypervisor.StateRunning {
		t.Error("it runs on both")
	}
	b.write(v.ID, 1, 's')
}

func TestAPreparationCanBeCancelled(t *testing.T) {
	for name, cancel := range map[string]func(b *device, j string) error{
		"by going online":  func(b *device, _ string) error { return b.engine.GoOnline(b.t.Context()) },
		"by cancelling it": func(b *device, j string) error { return b.engine.CancelJob(b.t.Context(), j) },
		"by another switch": func(b *device, _ string) error {
			return b.engine.CancelSwitch(b.t.Context(), b.status().VMs[0].Switch.ID)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, v, j, hold := heldPreparation(t)
			defer close(hold)
			_, err := b.engine.GoOffline(t.Context(), api.GoOffline{})
			wantCode(t, "preparing twice", err, api.CodeBusy)
			if err := cancel(b, j.ID); err != nil {
				t.Fatal(err)
			}
			if got := b.jobEnded(j.ID); got.Error == nil || got.Error.Code != api.CodeCancelled {
				t.Fatalf("%+v", got)
			}
			if s := b.status().Offline; s.On || s.Job != "" {
				t.Errorf("%+v", s)
			}
			until(t, "the guest to go on where it was", func() bool {
				v, _ := a.vm("Work")
				return v.Here && v.State == api.VMRunning
			})
			a.write(v.ID, 2, 't')
			b.stop()
			b.start()
			if s := b.status().Offline; s.On || s.Job != "" {
				t.Errorf("after a restart: %+v", s)
			}
		})
	}
}

func TestHurryEndsThePreparation(t *testing.T) {
	a, b, _, j, hold := heldPreparation(t)
	defer close(hold)
	if again := b.goOffline(api.GoOffline{Now: true}); again.ID != j.ID {
		t.Errorf("another job: %+v", again)
	}
	if got := b.jobEnded(j.ID); got.Error != nil {
		t.Fatal(got.Error)
	}
	if s := b.status().Offline; !s.On || s.VMs[0].Taken {
		t.Errorf("%+v", s)
	}
	until(t, "the guest to go on where it was", func() bool { v, _ := a.vm("Work"); return v.Here && v.State == api.VMRunning })
}

// While one VM is still on its way, one that is here already isn't given away again.
func TestNothingLeavesWhileItIsPacked(t *testing.T) {
	a, b, _ := twoDevices(t)
	b.create("Home")
	b.live("Home")
	until(t, "the VMs to be known", func() bool { return len(a.status().VMs) == 2 && len(b.status().VMs) == 2 })
	hold := make(chan struct{})
	b.hv.setHold(hold)
	j := b.goOffline(api.GoOffline{})
	until(t, "the switch to begin", func() bool { v, _ := b.vm("Work"); return v.Switch != nil })
	if _, err := a.engine.Switch(t.Context(), api.SwitchVM{VM: "Home"}); err != nil {
		t.Fatal(err)
	}
	s := a.ended("Home")
	if s.Phase != api.PhaseFailed || s.Error == nil {
		t.Fatalf("%+v", s)
	}
	wantText(t, "the refusal", s.Error.Error(), "laptop is getting ready to take Home along")
	_, err := b.engine.Switch(t.Context(), api.SwitchVM{VM: "Home", To: "desk"})
	wantCode(t, "sending it away", err, api.CodeBusy)
	close(hold)
	if got := b.jobEnded(j.ID); got.Error != nil {
		t.Fatal(got.Error)
	}
	for _, v := range b.status().Offline.VMs {
		if !v.Taken {
			t.Errorf("%+v", v)
		}
	}
	wantText(t, "the word at the end", b.event("offline.on").Text, "Home, Work come along")
}

func TestWhoHasNotHeardIsNamedUntilItHas(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, a, b)
	b.create("Work")
	b.live("Work")
	a.stop()
	until(t, "the link to be gone", func() bool { return !b.engine.linked(a.engine.host.ID()) })
	if j := b.jobEnded(b.goOffline(api.GoOffline{}).ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	if s := b.status().Offline; !s.On || len(s.Unaware) != 1 || s.Unaware[0] != "desk" {
		t.Fatalf("%+v", s)
	}
	wantText(t, "the word at the end", b.event("offline.on").Text, "desk doesn't know")
	a.start()
	until(t, "the other device to have heard", func() bool { return len(b.status().Offline.Unaware) == 0 })
	until(t, "what it heard", func() bool { s := a.status(); return len(s.VMs) == 1 && s.VMs[0].Offline })
}

// Whom the VM was taken over from had told that it works offline, and what the VM did there. Until the new owner has told something
// itself, that says nothing about it.
func TestAWordOfTheOwnerBeforeSaysNothingOfThisOne(t *testing.T) {
	desk, laptop, nas, v := threeDevices(t)
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	if j := desk.jobEnded(desk.goOffline(api.GoOffline{}).ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	until(t, "the others to know", func() bool {
		a, _ := laptop.vm("Work")
		b, _ := nas.vm("Work")
		return a.Offline && b.Offline && b.State == api.VMRunning
	})
	self := laptop.engine.host.ID()
	opt := directory.Options{Dir: filepath.Join(laptop.dir, "directory"), Self: self, Sign: laptop.engine.host.Sign, Verify: p2p.Verify}
	pos := directory.Position(laptop.engine.vm(v.ID).currentDisk().Info().Position)
	desk.stop()
	laptop.stop()
	until(t, "the links to be gone", func() bool { return !nas.engine.linked(self) && !nas.engine.linked(desk.engine.host.ID()) })
	before, err := nas.engine.Takeover(t.Context(), "Work")
	if err != nil {
		t.Fatal(err)
	}
	if !before.Offline || before.OwnerName != "desk" || before.State != api.VMRunning {
		t.Errorf("of the desk it says %+v", before)
	}
	// The laptop takes it over, and all that reaches the nas is that.
	dir, err := directory.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dir.TakeOver(v.ID, dir.Heads(v.ID)[0].Hash(), pos)
	for key := range dir.Digest() {
		for _, r := range dir.Get([]string{key}) {
			if strings.HasPrefix(key, "transfer/") {
				err = errors.Join(err, nas.engine.dir.Apply(self, r))
			}
		}
	}
	if err := errors.Join(err, dir.Close()); err != nil {
		t.Fatal(err)
	}
	until(t, "the nas to hear of it", func() bool { s, _ := nas.vm("Work"); return s.Owner == self })
	if s, _ := nas.vm("Work"); s.Offline || !s.OfflineSince.IsZero() {
		t.Errorf("the laptop is said to be away with it: %+v", s)
	}
	told, err := nas.engine.Takeover(t.Context(), "Work")
	if err != nil {
		t.Fatal(err)
	}
	if told.Offline || !told.Since.IsZero() || told.OwnerName != "laptop" || told.State != api.VMUnknown || told.Missing != nil || told.Certain {
		t.Errorf("of the laptop it says %+v", told)
	}
	if all := read(told); strings.Contains(all, "journey") || strings.Contains(all, "was running") {
		t.Errorf("the person reads %q", all)
	}
	err = nas.engine.StartVM(t.Context(), "Work")
	wantCode(t, "starting what the laptop owns", err, api.CodeElsewhere)
	if text := api.AsError(err).Error(); strings.Contains(text, "offline") {
		t.Errorf("the refusal is %q", text)
	}
}
