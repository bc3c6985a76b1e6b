package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/postal"
)

// backend is the VM's disk as its hypervisor reaches it.
func (d *device) backend(id string) disknbd.Backend {
	v := d.engine.vm(id)
	disk := v.currentDisk()
	return disknbd.Backend{Disk: disk, Second: v.second.On(disk, nil)}
}

func (d *device) setSync(sync string) {
	d.t.Helper()
	if err := d.engine.SetVM(d.t.Context(), api.SetVM{VM: "Work", Sync: sync}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) second() api.SecondState {
	d.t.Helper()
	v, _ := d.vm("Work")
	if v.Second == nil {
		return ""
	}
	return v.Second.State
}

// guestFlush writes a block and flushes as a guest would: if that is refused it stands still, and sends the flush again when it goes on.
func (d *device) guestFlush(id string, block int64, fill byte) <-chan error {
	b, g := d.backend(id), d.hv.only()
	done := make(chan error, 1)
	go func() {
		err := b.WriteAt(bytes.Repeat([]byte{fill}, blockSize), block*blockSize, false)
		for err == nil {
			if err = b.Flush(); !errors.Is(err, syscall.ENOSPC) {
				break
			}
			g.mu.Lock()
			runs := g.runs
			g.mu.Unlock()
			g.set(hypervisor.StateIOError)
			for err = nil; ; time.Sleep(time.Millisecond) {
				g.mu.Lock()
				again := g.runs > runs
				g.mu.Unlock()
				if again {
					break
				}
				if d.t.Context().Err() != nil {
					err = context.Canceled
					break
				}
			}
		}
		done <- err
	}()
	return done
}

func done(t *testing.T, c <-chan error) {
	t.Helper()
	select {
	case err := <-c:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the flush doesn't end")
	}
}

// A flush that was answered is on the other device. Without it the VM is told of, stands still, and goes on by itself: when the device is back, and when
// the person doesn't want a second copy any more.
func TestTwo(t *testing.T) {
	owner, other, v := twoDevices(t)
	owner.setSync(api.SyncTwo)
	for i := range 20 {
		fill := byte('a' + i)
		done(t, owner.guestFlush(v.ID, 3, fill))
		if got := other.read(v.ID, 3); got != fill {
			t.Fatalf("flush %d was answered, and the other device has %q instead of %q", i, got, fill)
		}
	}
	if owner.second() != api.SecondKept {
		t.Errorf("it is %q", owner.second())
	}
	until(t, "the other device to hear of the setting", func() bool { w, _ := other.vm("Work"); return w.Spec.Two() && w.Second == nil })

	events, err := owner.engine.Watch(t.Context(), owner.engine.hub.last())
	if err != nil {
		t.Fatal(err)
	}
	told := func(kind, words string) {
		t.Helper()
		for e := range events {
			if e.Kind == kind {
				if e.VM != v.ID || !strings.Contains(e.Text, words) {
					t.Fatalf("told %+v", e)
				}
				return
			}
		}
	}
	other.stop()
	flush := owner.guestFlush(v.ID, 4, 'x')
	told("second.waits", "Work waits for a second copy")
	if owner.second() != api.SecondWaiting {
		t.Errorf("it is %q", owner.second())
	}
	told("vm."+string(hypervisor.StateIOError), "until another device has its last writes")
	w, _ := owner.vm("Work")
	if w.State != api.VMPaused || w.Problem == nil || !strings.Contains(w.Problem.Next, "--sync one") || w.Second.State != api.SecondPaused {
		t.Fatalf("%s, %+v, %+v", w.State, w.Problem, w.Second)
	}
	select {
	case err := <-flush:
		t.Fatalf("the flush ended: %v", err)
	default:
	}
	other.start()
	done(t, flush)
	if got := other.read(v.ID, 4); got != 'x' {
		t.Fatalf("the other device has %q", got)
	}
	until(t, "all to be well again", func() bool {
		w, _ := owner.vm("Work")
		return w.State == api.VMRunning && w.Problem == nil && w.Second.State == api.SecondKept
	})

	other.stop()
	flush = owner.guestFlush(v.ID, 5, 'y')
	until(t, "the flush to wait", func() bool { return owner.second() == api.SecondWaiting })
	owner.setSync(api.SyncOne)
	done(t, flush)
	if w, _ := owner.vm("Work"); w.Second != nil || w.Spec.Two() {
		t.Errorf("%+v", w.Second)
	}
}

// Nobody waits for who can't come.
func TestTwoDoesntWaitForNobody(t *testing.T) {
	a := newDevice(t, "desk")
	v := a.create("Work")
	if err := a.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	a.setSync(api.SyncTwo)
	done(t, a.guestFlush(v.ID, 0, 'a'))
	if a.second() != api.SecondAlone {
		t.Errorf("alone it is %q", a.second())
	}

	b := newDevice(t, "laptop")
	pair(t, a, b)
	a.live("Work")
	until(t, "it to be held", func() bool { return a.second() == api.SecondKept })
	b.stop()
	flush := a.guestFlush(v.ID, 0, 'b')
	until(t, "the flush to wait", func() bool { return a.second() == api.SecondWaiting })
	if _, err := a.engine.GoOffline(t.Context(), api.GoOffline{Now: true}); err != nil {
		t.Fatal(err)
	}
	done(t, flush)
	if a.second() != api.SecondOffline {
		t.Errorf("offline it is %q", a.second())
	}
}

// A device that has been there but never had a whole copy is not waited for: a first copy can take hours.
func TestTwoDoesntWaitForAFirstCopy(t *testing.T) {
	a, b := newDevice(t, "desk"), newDevice(t, "laptop")
	pair(t, a, b)
	b.stop()
	v := a.create("Work")
	if err := a.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	a.setSync(api.SyncTwo)
	done(t, a.guestFlush(v.ID, 0, 'a'))
	if a.second() != api.SecondUncopied {
		t.Errorf("it is %q", a.second())
	}
	b.start()
	until(t, "it to be held", func() bool { return a.second() == api.SecondKept })
	done(t, a.guestFlush(v.ID, 0, 'b'))
	if got := b.read(v.ID, 0); got != 'b' {
		t.Errorf("the other device has %q", got)
	}
}

// Only the owner sets, only what there is, and what a later version has put into the spec stays.
func TestSetVM(t *testing.T) {
	owner, other, v := twoDevices(t)
	for _, c := range []struct {
		d    *device
		req  api.SetVM
		code api.Code
	}{
		{owner, api.SetVM{VM: "Work", Sync: "three"}, api.CodeUsage},
		{owner, api.SetVM{VM: "Nobody", Sync: "two"}, api.CodeNotFound},
		{other, api.SetVM{VM: "Work", Sync: "three"}, api.CodeUsage},
	} {
		var e *api.Error
		if err := c.d.engine.SetVM(t.Context(), c.req); !errors.As(err, &e) || e.Code != c.code || e.Next == "" {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
	if err := owner.engine.vm(v.ID).putSpec("later", map[string]any{"much": 9007199254740993}); err != nil {
		t.Fatal(err)
	}
	// Another device has the owner do it.
	if err := other.engine.SetVM(t.Context(), api.SetVM{VM: "Work", Sync: api.SyncTwo}); err != nil {
		t.Fatal(err)
	}
	if owner.second() != api.SecondKept {
		t.Errorf("asked by another device, the owner's copy is %q", owner.second())
	}
	r, _ := owner.engine.dir.VM(v.ID)
	var spec struct {
		api.Spec
		Later struct{ Much int64 }
	}
	if err := json.Unmarshal(r.Spec, &spec); err != nil || spec.Later.Much != 9007199254740993 {
		t.Fatalf("%s: %v", r.Spec, err)
	}
	want := v.Spec
	want.Sync = api.SyncTwo
	if !reflect.DeepEqual(spec.Spec, want) {
		t.Errorf("the spec became %+v, was %+v", spec.Spec, v.Spec)
	}
	// The setting goes along.
	if _, err := other.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := other.ended("Work"); s.Phase != api.PhaseDone {
		t.Fatalf("%+v", s)
	}
	until(t, "the new owner to hold it", func() bool { return other.second() == api.SecondKept })
	done(t, other.guestFlush(v.ID, 7, 'z'))
	if got := owner.read(v.ID, 7); got != 'z' {
		t.Errorf("the old owner has %q", got)
	}
}

// Where the only other device is at another site, which gets its changes later, a VM whose flushes wait is mirrored to it all the same.
func TestTwoAcrossSites(t *testing.T) {
	rarely := func(e *Engine) { e.post.times = postal.Times{Rest: time.Hour, Gap: time.Hour, Overdue: time.Hour} }
	all := fleetThat(t, rarely, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	if err := desk.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	desk.setSync(api.SyncTwo)
	until(t, "a first copy at the other site", func() bool { return desk.second() == api.SecondKept })
	for i := range 10 {
		fill := byte('b' + i)
		done(t, desk.guestFlush(v.ID, 1, fill))
		if got := laptop.read(v.ID, 1); got != fill {
			t.Fatalf("flush %d was answered, and the other site has %q instead of %q", i, got, fill)
		}
	}
	if desk.hv.only().get() != hypervisor.StateRunning {
		t.Error("the VM had to stand still")
	}
}

// Who takes a VM over reads before that it would stand still for want of a second copy, and how it goes on.
func TestATakeoverTellsThatItWouldStandStill(t *testing.T) {
	a, b, _ := twoDevices(t)
	a.setSync(api.SyncTwo)
	a.create("Play")
	until(t, "both copies", func() bool {
		w, _ := b.vm("Work")
		p, ok := b.vm("Play")
		return ok && w.Spec.Two() && b.engine.vm(p.ID).currentDisk() != nil && b.engine.vm(p.ID).currentDisk().Info().Complete
	})
	a.stop()
	until(t, "it to be away", func() bool { return !b.engine.linked(a.engine.host.ID()) })
	warned := func(vm string) bool {
		got, err := b.engine.Takeover(t.Context(), vm)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(got.Warnings, func(w api.Warning) bool {
			return w.Code == api.WarnSecond && strings.Contains(w.Text, `tagalong vm set "Work" --sync one`)
		})
	}
	if !warned("Work") || warned("Play") {
		t.Errorf("warned of Work: %v, of Play: %v", warned("Work"), warned("Play"))
	}
	c := newDevice(t, "attic")
	pair(t, b, c)
	if warned("Work") {
		t.Error("warned though another device is there")
	}
}
