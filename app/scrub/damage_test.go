package scrub

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

func all(string) bool { return true }

// What was found stays told until it is seen to be over, and what was repaired for a week.
func TestDamageIsRemembered(t *testing.T) {
	open := api.VerifyFinding{Off: span, Len: 10, Open: true, Copies: map[string]string{"a": api.VerifyUndecided}}
	mended := api.VerifyFinding{Off: 5, Len: 10, Copies: map[string]string{"b": api.VerifyRepaired}}
	d, now := &Damage{Version: DamageVersion}, start
	if d.Told(now) != nil {
		t.Error("nothing was found, and something is told")
	}
	d.Passed(Part{From: 0, To: span, Compared: all, Findings: []api.VerifyFinding{mended}}, now)
	d.Passed(Part{From: span, To: 2 * span, Compared: all, Findings: []api.VerifyFinding{open}}, now.Add(time.Second))
	told := d.Told(now)
	if told == nil || !told.Open || len(told.Found) != 2 || !told.At.Equal(now.Add(time.Second)) {
		t.Fatalf("%+v", told)
	}
	// Elsewhere, or without the copy that it is about, nothing is learned of it.
	d.Passed(Part{From: 0, To: span, Compared: all}, now)
	d.Passed(Part{From: span, To: 2 * span, Compared: func(device string) bool { return device != "a" }}, now)
	if told := d.Told(now); len(told.Found) != 2 || !told.Open {
		t.Fatalf("%+v", told)
	}
	// Found again it is told once.
	d.Passed(Part{From: span, To: 2 * span, Compared: all, Findings: []api.VerifyFinding{open}}, now)
	if told := d.Told(now); len(told.Found) != 2 {
		t.Fatalf("%+v", told)
	}
	d.Passed(Part{From: span, To: 2 * span, Compared: all}, now)
	if told := d.Told(now); len(told.Found) != 1 || told.Open {
		t.Fatalf("%+v", told)
	}
	if told := d.Told(now.Add(Every)); told != nil {
		t.Errorf("after a week %+v", told)
	}
	d.Passed(Part{From: 2 * span, To: 3 * span, Compared: all}, now.Add(Every))
	if len(d.Found) != 0 {
		t.Errorf("kept for good: %+v", d.Found)
	}
}

// There is a bound to what is kept, and the rest is counted; the next round counts anew.
func TestDamageIsBounded(t *testing.T) {
	d, p := &Damage{}, Part{From: 0, To: 1 << 30, Compared: all, More: 7}
	for i := range maxDamage + 3 {
		p.Findings = append(p.Findings, api.VerifyFinding{Off: int64(i) * 10, Len: 10, Open: true})
	}
	d.Passed(p, start)
	if told := d.Told(start); len(told.Found) != maxDamage || told.More != 37 {
		t.Errorf("%d places, and %d bytes more", len(told.Found), told.More)
	}
	d.Passed(Part{From: 0, To: 0, Compared: all}, start) // it was cut short at once
	if told := d.Told(start); told == nil || told.More != 37 {
		t.Errorf("%+v", told)
	}
	d.Passed(Part{From: 0, To: 1 << 30, Compared: all}, start)
	if told := d.Told(start); told != nil {
		t.Errorf("%+v", told)
	}
}

// A rate is that of the steps of late, and nothing is said of one that rested.
func TestMeter(t *testing.T) {
	m, now := &Meter{}, start
	for range 3 * meterSteps {
		if now = now.Add(Tick); m.Rate(now) < 0 {
			t.Fatal(m.Rate(now))
		}
		m.Stepped(now, 4*span)
	}
	if got := m.Rate(now); got != span {
		t.Errorf("%d bytes a second", got)
	}
	if got := m.Rate(now.Add(meterHolds + 1)); got != 0 {
		t.Errorf("%d bytes a second of one that rests", got)
	}
	now = now.Add(time.Hour)
	m.Stepped(now, 4*span)
	if got := m.Rate(now); got != 0 {
		t.Errorf("%d bytes a second after one step", got)
	}
	m.Stepped(now.Add(Tick), 8*span)
	if got := m.Rate(now.Add(Tick)); got != 2*span {
		t.Errorf("%d bytes a second after two", got)
	}
}
