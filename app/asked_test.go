package app

import (
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
)

// Nothing has been agreed yet when the engine ends on which the button was pressed: the next one says that the switch came to nothing.
func TestTheEngineEndsBeforeTheOfferIsThere(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	desk.hv.mu.Lock() // it doesn't come to an end with its preflight
	begun, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"})
	if err != nil {
		desk.hv.mu.Unlock()
		t.Fatal(err)
	}
	laptop.stop()
	laptop.start()
	desk.hv.mu.Unlock()
	s := laptop.ended("Work")
	if s.ID != begun.ID || s.Phase != api.PhaseFailed || !strings.Contains(s.Error.Sentence, "restarted") || !strings.Contains(s.Error.Sentence, "stays on desk") || s.Error.Next == "" {
		t.Errorf("%+v, %v", s, s.Error)
	}
	linked(t, desk, laptop)
	until(t, "the desk to be free", func() bool { return !desk.engine.vm(v.ID).switching() })
	take(t, laptop)
	if w, _ := laptop.vm("Work"); w.State != api.VMRunning {
		t.Errorf("right after the switch it is %s", w.State)
	}
	if s := desk.ended("Work"); s.Phase != api.PhaseDone {
		t.Errorf("%+v", s)
	}

	// What has come to an end isn't told again.
	laptop.stop()
	laptop.start()
	if w, _ := laptop.vm("Work"); w.Switch != nil {
		t.Errorf("told again: %+v", w.Switch)
	}
}

// What was changed a moment before the switch comes along with the offer.
func TestTheRecordComesWithTheOffer(t *testing.T) {
	desk, laptop, v := twoDevices(t)
	here, there := desk.engine.vm(v.ID), laptop.engine.vm(v.ID)
	if err := desk.engine.SetVM(t.Context(), api.SetVM{VM: "Work", Name: "Labour"}); err != nil {
		t.Fatal(err)
	}
	r := here.signedRecord()
	there.hearRecord(desk.engine.host.ID(), r)
	if name := there.name(); name != "Labour" {
		t.Errorf("it is called %s there", name)
	}
	// Nothing but a record of this VM is taken in.
	job, err := desk.engine.CreateVM(t.Context(), api.CreateVM{Name: "Play", CPUs: 1, MemoryMiB: 64, DiskBytes: testDisk})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "another VM", func() bool { return desk.engine.job(job.ID).snapshot().Done })
	other, _ := desk.vm("Play")
	for _, bad := range [][]byte{nil, []byte("{"), []byte("{}"), desk.engine.vm(other.ID).signedRecord()} {
		there.hearRecord(desk.engine.host.ID(), bad)
	}
	if name := there.name(); name != "Labour" {
		t.Errorf("it is called %s there", name)
	}
	if there.signedRecord() != nil {
		t.Error("a device that doesn't own the VM sends its record")
	}
}
