package ui

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// A VM that is too busy to come while it runs can be had suspended.
func TestBringingAVMSuspended(t *testing.T) {
	b := newBench(t).with(func(st *api.Status, _ time.Time) {
		sw := slowed(st)
		st.VMs[0].State = api.VMRunning
		sw.Phase, sw.CanEnd, sw.AllowedPause, sw.OfferPause = api.PhaseFailed, false, 3*time.Second, 61*time.Second
		sw.Estimate.Pause, sw.Offers = 40*time.Second, []api.Way{api.WaySuspend}
		sw.Error = &api.Error{Code: api.CodeConflict, Sentence: "Work would have to stand still for about 40 s."}
	})
	b.see("Or have it suspended for the way.", "Switch anyway")
	b.tap("Bring it suspended…")
	b.see("Bring Work suspended?", "Until then it stands still")
	b.tap("Bring it suspended")
	next(t, b.engine, `switch w to "" by suspend`)
	b.turn()
	b.with(func(st *api.Status, _ time.Time) {
		sw := slowed(st)
		sw.Step, sw.Slowed = "", 0
		sw.Kind, sw.Phase, sw.Why = "suspend", api.PhaseSend, "There is no connection to the other device."
	})
	b.see("suspended, its memory is on its way", "It goes on by itself when there is.")
	b.gone("Bring it suspended…")
}

// One that is too busy can be had ahead of its memory too, by who has read what that may cost.
func TestBringingAVMAheadOfItsMemory(t *testing.T) {
	b := newBench(t).with(func(st *api.Status, now time.Time) { syncScenes(now)["switch-too-busy"](st) })
	b.see("Or have it here at once, and its memory after it.", "Switch anyway", "Bring it suspended…")
	b.tap("Bring it at once…")
	b.see("Bring Work ahead of its memory?", "Laptop must stay on", "what is open and not saved is lost")
	b.tap("Bring it at once")
	next(t, b.engine, `switch w to "" by postcopy`)
	b.turn()
}
