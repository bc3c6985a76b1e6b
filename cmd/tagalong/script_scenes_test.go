package main

import (
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tagalong.org/tagalong/app/api"
)

func bytesOf(n int64) *int64 { return &n }

// cmdScene NAME changes the fleet into what scripts of takeovers, conflicts and journeys need.
func cmdScene(ts *testscript.TestScript, _ bool, args []string) {
	f, at := fakeOf(ts), time.Now().Add(-60*time.Hour)
	change := func(do func(st *api.Status, work *api.VM)) {
		f.Update("scene."+args[0], "on", func(st *api.Status) { do(st, &st.VMs[0]) })
	}
	switch args[0] {
	case "gone": // laptop is lost, with things that the copy here lacks
		change(func(st *api.Status, work *api.VM) {
			st.Devices[1].Connected, st.Devices[1].LastSeen, work.State = false, at, api.VMUnknown
		})
		f.SetTakeover(&api.Takeover{VM: "vm1", VMName: "Work", Owner: "D2", OwnerName: "laptop", Seen: at, State: api.VMRunning,
			Position: api.Position{Term: 3, Barrier: 90}, At: at, Latest: api.Position{Term: 3, Barrier: 120}, LatestAt: at, Missing: bytesOf(3 << 20),
			Better:   &api.Replica{Device: "D3", DeviceName: "attic", Position: api.Position{Term: 3, Barrier: 110}, Remaining: 1 << 20},
			Warnings: []api.Warning{{Code: api.WarnRunning, Text: "Work was running on laptop when it was last heard of."}, {Code: api.WarnBetter, Text: "attic has a newer copy."}}, Token: "t0k"})
	case "unfit": // attic can't run what Work is
		change(func(_ *api.Status, work *api.VM) {
			work.Unfit = []api.Unfit{{Device: "D3", DeviceName: "attic", Code: "cpu", Sentence: "The processor of attic lacks something."}}
		})
		f.SetPreflight(api.Preflight{ToName: "attic", Way: api.WayRestart, Findings: []api.Finding{{Code: "cpu", Sentence: "The processor of attic lacks something.",
			Next: "Shut it down, switch it, and start it there.", Stops: true, Left: api.WayRestart}}})
	case "busy": // Work writes more memory than the connection carries
		f.SetPreflight(api.Preflight{VMName: "Work", ToName: "attic", Way: api.WayTeleport, Findings: []api.Finding{}, Best: api.WaySuspend, Why: "While it runs, Work would stand still for longer than it may.",
			Ways: []api.WayEstimate{{Way: api.WayTeleport, Bytes: 300 << 20, There: 5 * time.Minute, Pause: 40 * time.Second, Full: 5 * time.Minute}, {Way: api.WayPostCopy},
				{Way: api.WaySuspend, Possible: true, Bytes: 150 << 20, There: 3 * time.Minute, Pause: 3 * time.Minute, Full: 3 * time.Minute}}})
	case "leaving": // a wipe failed here
		change(func(st *api.Status, _ *api.VM) {
			st.Leaving = &api.Leaving{By: "D2", ByName: "laptop", Wipe: true, Cause: "no", Text: "laptop had this device wiped."}
		})
	case "silent": // what is told of attic's copy is from its owner, which isn't heard
		change(func(_ *api.Status, work *api.VM) {
			work.Replicas[2].Silent, work.Replicas[2].At = true, at
		})
	case "on-the-train": // on battery and a phone's connection, with a push that waits
		change(func(st *api.Status, work *api.VM) {
			st.Sync = &api.Sync{Why: "metered", Text: "This connection is metered.", Metered: true, OnBattery: true, Percent: 61,
				Settings: api.SyncSettings{Metered: "avoid", Battery: api.SyncBattery{Below: 30, Rate: 1 << 20}}}
			work.Replicas[2].State = api.ReplicaWaiting
		})
	case "sites": // desk and laptop are here; attic and cellar elsewhere, shed by itself
		change(func(st *api.Status, _ *api.VM) {
			here := api.DeviceSite{ID: "D1", Here: true, Devices: []string{"D1", "D2"}, Postmaster: "D1"}
			there := api.DeviceSite{ID: "D3", Devices: []string{"D3", "D4"}, Postmaster: "D4"}
			alone := api.DeviceSite{ID: "D5", Devices: []string{"D5"}, Postmaster: "D5"}
			st.Devices = append(st.Devices, api.Device{ID: "D4", Name: "cellar", Connected: true}, api.Device{ID: "D5", Name: "shed", Connected: true})
			for i, at := range []*api.DeviceSite{&here, &here, &there, &there, &alone} {
				st.Devices[i].Site = at
			}
		})
	case "full": // nothing fits on the disk any more, not even what it takes to open Work
		change(func(st *api.Status, work *api.VM) {
			st.Problem = &api.Error{Code: api.CodeSpace, Sentence: "This device's disk is full.", Next: "Free some space."}
			work.Here, work.Owner, work.OwnerName, work.State, work.Unopened = true, "D1", "desk", api.VMUnknown, true
			work.Problem = &api.Error{Code: api.CodeSpace, Sentence: "The disk of Work couldn't be opened.", Next: "Free some space."}
		})
	case "waits": // of a disk that isn't whole laptop has the rest, and is away
		change(func(st *api.Status, work *api.VM) {
			st.Devices[1].Connected, st.Devices[1].LastSeen = false, at
			work.Here, work.Owner, work.OwnerName, work.State = true, "D1", "desk", api.VMRunning
			work.Hydration = &api.Hydration{Total: 4 << 30, Remaining: 1 << 30, Waiting: true, Reads: 2, From: []api.HydrationHolder{{Device: "D2", DeviceName: "laptop", Needed: true}}}
			work.Replicas[2].State, work.Replicas[2].Remaining, work.Replicas[2].Blocks, work.Replicas[2].Overrun = api.ReplicaBehind, 8<<20, 2048, at
			work.Spec.Sync, work.Second = api.SyncTwo, &api.SecondCopy{State: api.SecondFilling}
		})
	case "orphan":
		change(func(st *api.Status, work *api.VM) {
			st.Devices[1].Connected, work.Orphan, work.State = false, true, api.VMUnknown
			st.Devices = append(st.Devices[:1:1], st.Devices[2])
		})
	case "conflict":
		change(func(_ *api.Status, work *api.VM) {
			work.Here, work.Owner, work.OwnerName, work.State = true, "D1", "desk", api.VMRunning
			work.Conflict = &api.Conflict{Since: api.Position{Term: 3, Barrier: 90}, Found: at, Sides: []api.ConflictSide{
				{Branch: "a1b2c3d4e5f6a7b8", Owner: "D1", OwnerName: "desk", Here: true, Connected: true, Term: 70000, Position: api.Position{Term: 70000, Barrier: 4},
					Changed: bytesOf(1 << 30), At: at, Kind: "takeover", State: api.VMRunning},
				{Branch: "b1b2c3d4e5f6a7b8", Owner: "D2", OwnerName: "laptop", Connected: true, Term: 90000, Position: api.Position{Term: 3, Barrier: 130},
					Changed: bytesOf(300 << 20), At: at, Kind: "kept", State: api.VMPaused},
			}}
		})
	case "three-sides":
		change(func(_ *api.Status, work *api.VM) {
			work.Conflict.Sides = append(work.Conflict.Sides, api.ConflictSide{Branch: "c1b2c3d4e5f6a7b8", Owner: "D2", OwnerName: "laptop", Kind: "kept"})
		})
	case "points":
		change(func(_ *api.Status, work *api.VM) {
			point := api.RestorePoint{ID: "20260504-1", VM: "vm1", VMName: "Work", Device: "D1", DeviceName: "desk", Position: api.Position{Term: 3, Barrier: 130}, At: at,
				Bytes: 300 << 20, Why: "You went on with the side of laptop."}
			second := point
			second.ID, second.Bytes, second.Open = "20260506-2", 1<<30, true
			work.RestorePoints = []api.RestorePoint{point, second}
		})
	case "journey": // laptop took Work along
		change(func(st *api.Status, work *api.VM) {
			st.Devices[1].Connected, st.Devices[1].Offline, st.Devices[1].LastSeen = false, true, at
			work.Offline, work.OfflineSince = true, at
		})
	case "ready": // the preparation to go offline is done
		change(func(st *api.Status, _ *api.VM) {
			st.Jobs[len(st.Jobs)-1].Done = true
			st.Offline.On, st.Offline.Since, st.Offline.Job, st.Offline.Unaware = true, time.Now(), "", []string{"attic"}
			st.Offline.VMs[0].Taken = true
		})
	case "resolving": // a resolution's job is under way
		f.Update("job", "on", func(st *api.Status) {
			st.Jobs = append(st.Jobs, api.Job{ID: "resolve-1", Kind: "resolve", VM: "vm1", VMName: "Work", Phase: "comparing", Bytes: 1 << 30, Total: 4 << 30})
		})
	case "history": // a takeover that was undone
		f.SetHistory("vm1", []api.HistoryEntry{
			{VM: "vm1", Term: 1, Owner: "D1", OwnerName: "desk", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Kind: "created", Hash: "h1"},
			{VM: "vm1", Term: 2, Owner: "D2", OwnerName: "laptop", From: "D1", FromName: "desk", At: time.Date(2026, 1, 3, 3, 4, 5, 0, time.UTC), Kind: "switch", Hash: "h2", Prev: "h1",
				How: "teleport", Pause: 84 * time.Millisecond, Memory: 2 << 30, Disk: 30 << 20},
			{VM: "vm1", Term: 70000, Owner: "D1", OwnerName: "desk", From: "D2", FromName: "laptop", At: time.Date(2026, 1, 4, 3, 4, 5, 0, time.UTC), Kind: "takeover", Hash: "h3", Prev: "h2", How: "takeover", Lost: true},
			{VM: "vm1", Term: 70001, Owner: "D3", OwnerName: "attic", From: "D1", FromName: "desk", At: time.Date(2026, 1, 4, 4, 4, 5, 0, time.UTC), Kind: "switch", Hash: "h4", Prev: "h3", How: "start", Lost: true},
			{VM: "vm1", Term: 90000, Owner: "D2", OwnerName: "laptop", From: "D2", FromName: "laptop", At: time.Date(2026, 1, 5, 3, 4, 5, 0, time.UTC), Kind: "kept", Hash: "h5", Prev: "h2"},
			{VM: "vm1", Term: 200000, Owner: "D2", OwnerName: "laptop", From: "D1", FromName: "desk", At: time.Date(2026, 1, 5, 4, 4, 5, 0, time.UTC), Kind: "resolved", Hash: "h6", Prev: "h5", Over: []string{"h4"}},
		})
	default:
		ts.Fatalf("scene %q", args)
	}
}
