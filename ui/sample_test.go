package ui

import (
	"time"

	"tagalong.org/tagalong/app/api"
)

// testNow is when the tests' statuses were taken.
var testNow = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

const (
	gib = int64(1) << 30
	mib = int64(1) << 20
)

// sample is a fleet of three: this device (Desk), Laptop, connected, which owns Work, and Attic,
// away. now is the time of its making.
func sample(now time.Time) *api.Status {
	desk := api.Device{ID: "D", Name: "Desk", Self: true, Connected: true, LastSeen: now}
	laptop := api.Device{ID: "L", Name: "Laptop", Connected: true, RTTMicros: 2400, LastSeen: now}
	attic := api.Device{ID: "A", Name: "Attic", LastSeen: now.Add(-3 * time.Hour)}
	pos := api.Position{Term: 3, Barrier: 120}
	work := api.VM{ID: "w", Name: "Work", State: api.VMRunning, Owner: "L", OwnerName: "Laptop", Term: 3, Position: pos,
		Spec: api.Spec{CPUs: 4, MemoryKiB: 4 << 20, DiskBytes: 40 * gib, Screen: true, Network: true},
		Replicas: []api.Replica{
			{Device: "L", DeviceName: "Laptop", State: api.ReplicaOwner, Position: pos, Heard: now},
			{Device: "D", DeviceName: "Desk", State: api.ReplicaLive, Position: pos, Heard: now},
			{Device: "A", DeviceName: "Attic", State: api.ReplicaAway, Remaining: 3 * gib / 2, Heard: now.Add(-3 * time.Hour)},
		}}
	return &api.Status{API: api.Version, Version: "test", Seq: 1, Device: desk, Devices: []api.Device{desk, laptop, attic},
		VMs: []api.VM{work}, Hypervisor: api.Hypervisor{Found: true, Path: "/usr/bin/qemu", Version: "7.2", Accel: "kvm"}}
}

// switching is a switch of Work to Desk, under way.
func switching() *api.Switch {
	return &api.Switch{ID: "s1", VM: "w", VMName: "Work", From: "L", FromName: "Laptop", To: "D", ToName: "Desk", Kind: "teleport",
		Phase: api.PhaseMemory, Bytes: 1700 * mib, Total: 4096 * mib, Rate: 95 * mib, ETA: 26 * time.Second, CanEnd: true}
}

func bytesOf(n int64) *int64 { return &n }

// inConflict gives the sample's Work two histories: Desk took it over, Laptop came back with its own.
func inConflict(st *api.Status, now time.Time) {
	w := &st.VMs[0]
	w.Here, w.Owner, w.OwnerName, w.State = true, "D", "Desk", api.VMRunning
	w.Replicas = nil
	w.Conflict = &api.Conflict{Since: api.Position{Term: 3, Barrier: 90}, Found: now.Add(-5 * time.Minute), Sides: []api.ConflictSide{
		{Branch: "bd", Owner: "D", OwnerName: "Desk", Here: true, Connected: true, Term: 70000, Changed: bytesOf(1200 * mib), At: now.Add(-time.Minute), Kind: "takeover", State: api.VMRunning},
		{Branch: "bl", Owner: "L", OwnerName: "Laptop", Connected: true, Term: 90000, Changed: bytesOf(300 * mib), At: now.Add(-2 * time.Hour), Kind: "kept", State: api.VMPaused},
	}}
}

// ownerGone takes the sample's Laptop away, with Work.
func ownerGone(st *api.Status, now time.Time) {
	st.Devices[1].Connected, st.Devices[1].LastSeen = false, now.Add(-26*time.Hour)
	st.VMs[0].State = api.VMUnknown
}

// lossy is what the engine tells before Work is taken over then.
func lossy(now time.Time) api.Takeover {
	return api.Takeover{VM: "w", VMName: "Work", Owner: "L", OwnerName: "Laptop", Seen: now.Add(-26 * time.Hour), State: api.VMRunning,
		Position: api.Position{Term: 3, Barrier: 90}, At: now.Add(-27 * time.Hour), Latest: api.Position{Term: 3, Barrier: 120}, LatestAt: now.Add(-26 * time.Hour),
		Missing: bytesOf(300 * mib), Better: &api.Replica{Device: "A", DeviceName: "Attic"},
		Warnings: []api.Warning{{Code: api.WarnRunning, Text: "Work was running on Laptop."}}, Token: "t1"}
}

// withPoints gives the sample's Work two restore points.
func withPoints(st *api.Status, now time.Time) {
	p := api.RestorePoint{ID: "p1", VM: "w", VMName: "Work", Device: "D", DeviceName: "Desk", Position: api.Position{Term: 3, Barrier: 130}, At: now.Add(-50 * time.Hour),
		Bytes: 300 * mib, Why: "You went on with the side of Laptop.", Chosen: "Laptop"}
	q := p
	q.ID, q.At, q.Bytes, q.Open = "p2", now.Add(-3*time.Hour), 2*gib, true
	st.VMs[0].RestorePoints = []api.RestorePoint{p, q}
}

// preparing has the sample get ready to work offline.
func preparing(st *api.Status) {
	st.Jobs = []api.Job{{ID: "off", Kind: "offline", Phase: "completing", Bytes: 1700 * mib, Total: 4096 * mib, Rate: 95 * mib, ETA: 4 * time.Minute}}
	st.Offline = api.Offline{Job: "off", VMs: []api.OfflineVM{{VM: "w", VMName: "Work", Taken: true, OwnerName: "Desk", Missing: bytesOf(2396 * mib)},
		{VM: "p", VMName: "Play", OwnerName: "Attic", Missing: bytesOf(0)}}}
}

// pastOf is a history with a takeover that was undone.
func pastOf(now time.Time) []api.HistoryEntry {
	at := func(h int) time.Time { return now.Add(-time.Duration(h) * time.Hour) }
	return []api.HistoryEntry{
		{Hash: "h1", Term: 1, Owner: "D", OwnerName: "Desk", At: at(300), Kind: "created"},
		{Hash: "h2", Prev: "h1", Term: 2, Owner: "L", OwnerName: "Laptop", From: "D", FromName: "Desk", At: at(200), Kind: "switch", How: "teleport", Pause: 84 * time.Millisecond, Memory: 2 * gib, Disk: 30 * mib},
		{Hash: "h3", Prev: "h2", Term: 70000, Owner: "D", OwnerName: "Desk", From: "L", FromName: "Laptop", At: at(50), Kind: "takeover", Lost: true},
		{Hash: "h4", Prev: "h3", Term: 70001, Owner: "A", OwnerName: "Attic", From: "D", FromName: "Desk", At: at(49), Kind: "switch", How: "start", Lost: true},
		{Hash: "h5", Prev: "h2", Term: 90000, Owner: "L", OwnerName: "Laptop", From: "D", FromName: "Desk", At: at(40), Kind: "kept"},
		{Hash: "h6", Prev: "h5", Term: 200000, Owner: "L", OwnerName: "Laptop", From: "D", FromName: "Desk", At: at(39), Kind: "resolved", Over: []string{"h4"}},
		{Hash: "h7", Prev: "h6", Term: 200001, Owner: "D", OwnerName: "Desk", From: "L", FromName: "Laptop", At: at(3), Kind: "switch", How: "teleport", Pause: 71 * time.Millisecond, Memory: gib, Disk: 4 * mib},
	}
}
