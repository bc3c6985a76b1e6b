package ui

import (
	"time"

	"tagalong.org/tagalong/app/api"
)

// syncScenes are the states of replication that are worth a picture.
func syncScenes(now time.Time) map[string]func(*api.Status) {
	return map[string]func(*api.Status){
		"hydrating":        func(st *api.Status) { hydrating(st, now) },
		"hydrating-waits":  func(st *api.Status) { hydrating(st, now); holdersGone(st, now) },
		"hydrating-nobody": func(st *api.Status) { hydrating(st, now); holdersGone(st, now); st.VMs[0].Hydration.From = nil },
		"lending": func(st *api.Status) {
			st.VMs[0].Lending = &api.Lending{To: "L", ToName: "Laptop", Remaining: 310 * mib, Needed: true}
		},
		"behind":          func(st *api.Status) { fallenBehind(st, now) },
		"sync-paused":     func(st *api.Status) { twoSites(st, now); held(st, "paused", now.Add(2*time.Hour)) },
		"sync-metered":    func(st *api.Status) { twoSites(st, now); held(st, "metered", time.Time{}) },
		"sync-schedule":   func(st *api.Status) { twoSites(st, now); held(st, "schedule", now.Add(5*time.Hour)) },
		"sync-battery":    func(st *api.Status) { twoSites(st, now); held(st, "low-battery", time.Time{}) },
		"sync-limited":    func(st *api.Status) { twoSites(st, now); st.Sync.Why, st.Sync.Up = "limited", 500<<10 },
		"sync-asked":      func(st *api.Status) { twoSites(st, now); held(st, "paused", time.Time{}); st.Sync.Asked = true },
		"second-kept":     func(st *api.Status) { second(st, api.SecondKept, now) },
		"second-waiting":  func(st *api.Status) { second(st, api.SecondWaiting, now) },
		"second-paused":   func(st *api.Status) { second(st, api.SecondPaused, now) },
		"second-alone":    func(st *api.Status) { second(st, api.SecondAlone, now) },
		"second-uncopied": func(st *api.Status) { second(st, api.SecondUncopied, now) },
		"verifying":       func(st *api.Status) { here(st); verification(st, now, false) },
		"verifying-weekly": func(st *api.Status) {
			here(st)
			st.VMs[0].Verifying = &api.Verifying{Ended: now.Add(-8 * 24 * time.Hour), Began: now.Add(-9 * time.Minute), Done: 21 * gib, Total: 40 * gib, Rate: 64 * mib, ETA: 304 * time.Second}
		},
		"damaged": func(st *api.Status) {
			here(st)
			st.VMs[0].Verifying = &api.Verifying{Total: 40 * gib, Rests: api.VerifyRestsAlone}
			st.VMs[0].Damage = &api.Damage{At: now, Open: true, Found: []api.FoundDamage{{At: now, VerifyFinding: api.VerifyFinding{Off: 7 * gib, Len: 65536, Open: true,
				Copies: map[string]string{"L": api.VerifyBetter}, Names: map[string]string{"L": "Laptop"}}}}}
		},
		"switch-slowed": func(st *api.Status) { slowed(st) },
		"switch-longer": func(st *api.Status) {
			sw := slowed(st)
			sw.Step, sw.AllowedPause = api.StepLonger, time.Second
		},
		"switch-far": func(st *api.Status) {
			sw := slowed(st)
			sw.Step, sw.Slowed, sw.AllowedPause = api.StepLonger, 0, time.Second
			sw.Rate, sw.Estimate.Rate, sw.Estimate.DirtyRate = 870<<10, 870<<10, 40<<10
		},
		"switch-too-busy": func(st *api.Status) {
			sw := slowed(st)
			st.VMs[0].State = api.VMRunning
			sw.Phase, sw.CanEnd, sw.AllowedPause, sw.OfferPause = api.PhaseFailed, false, 3*time.Second, 61*time.Second
			sw.Estimate.Pause, sw.Offers = 40*time.Second, []api.Way{api.WayPostCopy, api.WaySuspend}
			sw.Error = &api.Error{Code: api.CodeConflict, Sentence: "Work would have to stand still for about 40 s."}
		},
		"switch-suspended": func(st *api.Status) {
			sw := slowed(st)
			sw.Step, sw.Slowed, sw.Kind, sw.Phase, sw.Chosen, sw.Way = "", 0, "suspend", api.PhaseSend, true, api.WaySuspend
		},
		"switch-suspended-waits": func(st *api.Status) {
			sw := slowed(st)
			sw.Step, sw.Slowed, sw.Kind, sw.Phase, sw.Rate, sw.ETA = "", 0, "suspend", api.PhaseSend, 0, 0
			sw.Why = "There is no connection to Laptop."
		},
		"switch-link-lost":   func(st *api.Status) { refused(st, api.TopicSwitchLinkLost, api.RemedySwitch, nil) },
		"switch-little-room": func(st *api.Status) { refused(st, api.TopicSwitchMemory, "", []api.Way{api.WaySuspend}) },
		"switch-cpu":         func(st *api.Status) { refused(st, api.TopicSwitchCPU, "", nil) },
		"switch-sent": func(st *api.Status) {
			refused(st, api.TopicSwitchTimeout, api.RemedySwitch, nil)
			here(st)
			sw := st.VMs[0].Switch
			sw.From, sw.FromName, sw.To, sw.ToName = "D", "Desk", "L", "Laptop"
		},
		"given-away": func(st *api.Status) {
			ownerGone(st, now)
			st.VMs[0].State, st.VMs[0].Switch = api.VMSwitching, switching()
			st.VMs[0].Switch.Phase, st.VMs[0].Switch.CanEnd, st.VMs[0].Switch.Rate, st.VMs[0].Switch.ETA = api.PhaseHandOff, false, 0, 0
			st.VMs[0].Problem = &api.Error{Code: api.CodeUnreachable, Sentence: "Work stands still here.", Next: "Wait.", Remedy: api.RemedyTake, Topic: api.TopicGivenAway, Other: "Laptop"}
		},
		"fell": func(st *api.Status) {
			here(st)
			st.VMs[0].State = api.VMStopped
			st.VMs[0].Problem = &api.Error{Code: api.CodeInternal, Sentence: "It fell.", Next: "Start it.", Remedy: api.RemedyStart, Topic: api.TopicFell}
		},
		"unfit": func(st *api.Status) { st.VMs[0].Unfit = []api.Unfit{{Device: "D", DeviceName: "Desk", Code: "cpu"}} },
		"suspending": func(st *api.Status) {
			here(st)
			st.Jobs = []api.Job{{ID: "j", Kind: "suspend", VM: "w", VMName: "Work", Bytes: 700 * mib, Total: 2100 * mib, Rate: 210 * mib, ETA: 7 * time.Second}}
		},
		"suspended": func(st *api.Status) { here(st); st.VMs[0].State = api.VMSuspended },
		"trailing":  func(st *api.Status) { trailing(st, false) },
		"trailing-waits": func(st *api.Status) {
			trailing(st, true)
			st.Devices[1].Connected, st.Devices[1].LastSeen = false, now.Add(-time.Minute)
		},
		"lending-memory": func(st *api.Status) {
			st.VMs[0].Lending = &api.Lending{To: "L", ToName: "Laptop", Needed: true, Memory: true}
		},
		"verified-repaired": func(st *api.Status) { here(st); verification(st, now, true) },
	}
}

// refused has a switch of the sample's Work to here come to nothing.
func refused(st *api.Status, topic api.Topic, remedy api.Remedy, offers []api.Way) {
	sw := slowed(st)
	st.VMs[0].State = api.VMRunning
	sw.Phase, sw.CanEnd, sw.Offers = api.PhaseFailed, false, offers
	sw.Error = &api.Error{Code: api.CodeConflict, Topic: topic, Remedy: remedy, Next: "Try again.",
		Sentence: "There isn't enough free memory on Desk: Work needs 4096 MiB, and there are 3100 MiB. Work stays on Laptop."}
}

// trailing has the sample's Work go on here before all of its memory has come.
func trailing(st *api.Status, waiting bool) {
	here(st)
	st.VMs[0].Trailing = &api.Trailing{From: "L", FromName: "Laptop", Remaining: 180 * mib, Rate: 870 << 10, ETA: 3 * time.Minute, Waiting: waiting}
}

// slowed has the sample's Work on its way here, and writing more memory than the connection carries.
func slowed(st *api.Status) *api.Switch {
	sw := switching()
	sw.Step, sw.Slowed, sw.AllowedPause = api.StepSlowed, 60, 300*time.Millisecond
	sw.Rate, sw.Estimate = 11*mib, api.SwitchEstimate{Memory: 400 * mib, Rate: 11 * mib, DirtyRate: 14 * mib, Pause: 37 * time.Second}
	st.VMs[0].Switch, st.VMs[0].State = sw, api.VMSwitching
	return sw
}

// here has the sample's Work run on this device, with live copies on both others.
func here(st *api.Status) {
	w := &st.VMs[0]
	w.Here, w.Owner, w.OwnerName, w.State = true, "D", "Desk", api.VMRunning
	w.Replicas[0].State, w.Replicas[1].State = api.ReplicaLive, api.ReplicaOwner
	st.Devices[1].Site = &api.DeviceSite{ID: "s", Here: true, Devices: []string{"D", "L"}}
}

// hydrating has Work switched here with its disk half there: Laptop has what is nowhere else.
func hydrating(st *api.Status, now time.Time) {
	here(st)
	st.Devices[2].Connected, st.Devices[2].LastSeen, st.Devices[2].RTTMicros = true, now, 31000
	w := &st.VMs[0]
	w.Replicas[2].State, w.Replicas[2].Heard = api.ReplicaWaiting, now
	w.Hydration = &api.Hydration{Total: 12 * gib, Remaining: 5 * gib, Fetched: 7 * gib, Rate: 84 * mib, ETA: 61 * time.Second, Since: api.Position{Term: 2, Barrier: 80},
		From: []api.HydrationHolder{
			{Device: "L", DeviceName: "Laptop", Connected: true, Needed: true, Rate: 80 * mib, Fetched: 6 * gib},
			{Device: "A", DeviceName: "Attic", Connected: true, Rate: 4 * mib, Fetched: gib},
		}}
}

// holdersGone takes away whoever has what Work lacks, and its guest reads it.
func holdersGone(st *api.Status, now time.Time) {
	for i := range st.Devices[1:] {
		st.Devices[1+i].Connected, st.Devices[1+i].LastSeen = false, now.Add(-4*time.Minute)
	}
	h := st.VMs[0].Hydration
	h.Waiting, h.Reads, h.Rate, h.ETA = true, 2, 0, 0
	for i := range h.From {
		h.From[i].Connected, h.From[i].Rate = false, 0
	}
}

// fallenBehind has a device for each way of not being up to date.
func fallenBehind(st *api.Status, now time.Time) {
	here(st)
	w := &st.VMs[0]
	l := &w.Replicas[0]
	l.State, l.Overrun, l.Since = api.ReplicaBehind, now.Add(-3*time.Minute), now.Add(-100*time.Second)
	l.Remaining, l.Blocks, l.Copied, l.Rate, l.ETA = 1400*mib, 1400*256, 600*mib, 21*mib, 67*time.Second
	add := func(id, name string, r api.Replica) {
		st.Devices = append(st.Devices, api.Device{ID: id, Name: name, Connected: true, RTTMicros: 38000, LastSeen: now})
		r.Device, r.DeviceName, r.Heard = id, name, now
		w.Replicas = append(w.Replicas, r)
	}
	add("C", "Cabin", api.Replica{State: api.ReplicaPushing, Remaining: 220 * mib, Blocks: 220 * 256, Copied: 80 * mib, Rate: 800 << 10, ETA: 281 * time.Second, Since: now.Add(-40 * time.Minute)})
	add("B", "Barn", api.Replica{State: api.ReplicaWaiting, Remaining: 31 * mib, Blocks: 31 * 256, Since: now.Add(-12 * time.Minute)})
	add("S", "Studio", api.Replica{State: api.ReplicaBehind, Remaining: 90 * mib, Blocks: 90 * 256, Silent: true, At: now.Add(-7 * time.Minute)})
	add("N", "New", api.Replica{State: api.ReplicaCopying, Silent: true, At: now.Add(-7 * time.Minute)})
}

// twoSites has Work here, Laptop on the same network, and Attic at another site, which a push is due to.
func twoSites(st *api.Status, now time.Time) {
	here(st)
	d := &st.Devices[2]
	d.Connected, d.LastSeen, d.RTTMicros = true, now, 41000
	d.Site = &api.DeviceSite{ID: "x", Name: "cabin", Devices: []string{"A"}, Postmaster: "A"}
	r := &st.VMs[0].Replicas[2]
	r.State, r.Remaining, r.Blocks, r.Heard, r.Since = api.ReplicaWaiting, 31*mib, 31*256, now, now.Add(-12*time.Minute)
	st.Sync = &api.Sync{May: true, Settings: api.SyncSettings{Metered: "avoid", Battery: api.SyncBattery{Below: 30, Rate: mib}}}
}

// held says why nothing goes to other sites.
func held(st *api.Status, why string, until time.Time) {
	st.Sync.May, st.Sync.Why, st.Sync.Until, st.Sync.Paused, st.Sync.Percent = false, why, until, why == "paused", 22
}

// second has Work wait for a second copy when it saves.
func second(st *api.Status, s api.SecondState, now time.Time) {
	here(st)
	w := &st.VMs[0]
	w.Spec.Sync, w.Second = api.SyncTwo, &api.SecondCopy{State: s, Since: now.Add(-6 * time.Second)}
	switch s {
	case api.SecondWaiting, api.SecondPaused:
		st.Devices[1].Connected, st.Devices[1].LastSeen = false, now.Add(-time.Minute)
		w.Replicas[0].State, w.Replicas[0].Heard = api.ReplicaAway, now.Add(-time.Minute)
	case api.SecondAlone:
		st.Devices, w.Replicas = st.Devices[:1], w.Replicas[1:2]
	}
	if s == api.SecondPaused {
		w.State = api.VMPaused
		w.Problem = &api.Error{Code: api.CodeUnreachable, Sentence: "Work stands still until another device has its last writes, as it was set to.",
			Next: `Connect another device, and it goes on by itself; or let it go on with one copy: tagalong vm set "Work" --sync one`}
	}
}

// verification has Work and its copies being verified; ended, with a repair, or not.
func verification(st *api.Status, now time.Time, ended bool) {
	j := api.Job{ID: "v", Kind: "verify", VM: "w", VMName: "Work", Started: now.Add(-3 * time.Minute), Bytes: 22 * gib, Total: 40 * gib, Rate: 120 * mib, ETA: 150 * time.Second}
	if ended {
		j.Bytes, j.ETA, j.Done = j.Total, 0, true
		j.Verification = &api.Verification{VM: "w", VMName: "Work", Started: j.Started, Clean: true, Complete: true, Read: j.Total,
			Sentence: "Damage was found in Work or its copies, and repaired.",
			Copies:   []api.VerifiedCopy{{Device: "L", DeviceName: "Laptop", Equal: j.Total}},
			Findings: []api.VerifyFinding{{Off: 7 * gib, Len: 4096, Copies: map[string]string{"L": "repaired"}}}}
	}
	st.Jobs = []api.Job{j}
}
