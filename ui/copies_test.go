package ui

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

// An owner's engine doesn't list its own device among the others; the copies elsewhere are in reach all the same.
func TestCopiesOfAVMThatIsHere(t *testing.T) {
	now := time.Now()
	st := &api.Status{
		Device:  api.Device{ID: "me", Name: "laptop"},
		Devices: []api.Device{{ID: "you", Name: "desk", Connected: true}},
		VMs: []api.VM{{ID: "v", Name: "Work", Here: true, Owner: "me", State: api.VMRunning,
			Replicas: []api.Replica{{Device: "you", State: api.ReplicaLive, Heard: now}}}},
	}
	live := copyOf(&st.VMs[0].Replicas[0], true, now).Text
	for _, row := range newIndex(st, nil, true).devices(now) {
		if row.ID == "you" && (len(row.Copies) != 1 || row.Copies[0].Text != live) {
			t.Errorf("a live copy reads %+v", row.Copies)
		}
	}
	st.Devices[0].Connected = false
	for _, row := range newIndex(st, nil, true).devices(now) {
		if row.ID == "you" && row.Copies[0].Text == live {
			t.Error("a copy out of reach is called live")
		}
	}
}

// A copy that is behind says by how much and how old what it lacks is at most, if that is known; one that can't keep up says that.
func TestHowFarACopyIsBehind(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		r    api.Replica
		want string
	}{
		{api.Replica{State: api.ReplicaLive, Remaining: 4 << 10, Since: now.Add(-2 * time.Second)}, "behind by 4 KiB · at most 2 s old"},
		{api.Replica{State: api.ReplicaBehind, Remaining: 8 << 20}, "catching up, behind by 8 MiB"},
		{api.Replica{State: api.ReplicaBehind, Remaining: 8 << 20, Blocks: 2048, Overrun: now, Since: now.Add(-40 * time.Second)}, "can't keep up, behind by 8 MiB (2048 blocks) · at most 40 s old"},
		{api.Replica{State: api.ReplicaPushing, Remaining: 8 << 20, Rate: 1 << 20, ETA: 8 * time.Second}, "gets a push, behind by 8 MiB · 1 MiB/s · 8 s left"},
		{api.Replica{State: api.ReplicaWaiting, Remaining: 8 << 20, Blocks: 1, Since: now.Add(-40 * time.Second)}, "waits for a push, behind by 8 MiB (1 block) · at most 40 s old"},
		{api.Replica{State: api.ReplicaWaiting, Heard: now}, "up to date"},
		{api.Replica{State: api.ReplicaBehind, Remaining: 8 << 20, Silent: true, At: now.Add(-5 * time.Minute)}, "unknown; 5 minutes ago it was behind by 8 MiB"},
		{api.Replica{State: api.ReplicaCopying, Silent: true, At: now}, "unknown"},
		{api.Replica{State: api.ReplicaLive, Silent: true, At: now, Heard: now.Add(-5 * time.Minute)}, "was up to date 5 minutes ago"},
	} {
		if got := copyOf(&c.r, true, now).Text; got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
