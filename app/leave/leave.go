// Package leave decides when a device is told that it is still needed by the new owner of a VM, which lacks some of the disk, and when that it
// may be switched off.
//
// It is a pure state machine: how each VM stands goes in, news come out, time comes with each Tick. It reads no clock and belongs to one
// goroutine.
//
// It guarantees that nobody is told that they may leave who wasn't needed, or before the owner itself has said that it can do without; and that
// who is needed for longer than Patience is told both, in that order, once each. What it doesn't remember over a restart is whether the person was told
// that the device is needed: they aren't told again, but are told when it isn't any more.
//
// Test it with: go test ./app/leave
package leave

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// Patience is for how long a device must be needed to be told so: a rest that is there in no time is no news.
const Patience = 5 * time.Second

// State is how a VM stands to this device.
type State int

// The states.
const (
	Unknown State = iota // nobody can say: nothing begins or ends
	Needed               // its owner has some of its disk from here alone
	Spared               // its owner lacks something still, and has it from others too
	Whole                // its owner lacks nothing, or this device owns it
)

// VM is a VM in a snapshot.
type VM struct {
	ID, Name, Owner, OwnerName string
	State                      State
	Lacks                      int64 // what the owner lacks, in bytes
}

// track follows a VM for which this device is needed.
type track struct {
	VM
	since time.Time
	told  bool
}

// Leave is the machine; the zero value is ready.
type Leave struct {
	begun  bool
	tracks map[string]*track
}

// Tick takes in how all VMs stand, and returns what is to be told now.
func (l *Leave) Tick(now time.Time, vms []VM) (news []api.SyncNews) {
	first := !l.begun
	l.begun = true
	if l.tracks == nil {
		l.tracks = map[string]*track{}
	}
	there := map[string]bool{}
	var free []VM
	for _, vm := range vms {
		there[vm.ID] = true
		t := l.tracks[vm.ID]
		switch vm.State {
		case Needed:
			if t == nil || t.Owner != vm.Owner {
				t = &track{since: now, told: first}
				l.tracks[vm.ID] = t
			}
			t.VM = vm
		case Spared, Whole:
			if t != nil && t.told && t.Owner == vm.Owner {
				free = append(free, vm)
			}
			delete(l.tracks, vm.ID)
		}
	}
	maps.DeleteFunc(l.tracks, func(id string, _ *track) bool { return !there[id] })
	for _, id := range slices.Sorted(maps.Keys(l.tracks)) {
		if t := l.tracks[id]; !t.told && now.Sub(t.since) >= Patience {
			t.told = true
			news = append(news, newsOf(api.SyncStay, t.VM, t.Lacks))
		}
	}
	slices.SortFunc(free, func(a, b VM) int { return cmp.Compare(a.ID, b.ID) })
	for _, vm := range free {
		news = append(news, newsOf(api.SyncLeave, vm, l.rest()))
	}
	return news
}

// rest is what owners still lack for which this device is needed; at least 1 if it is needed at all.
func (l *Leave) rest() (n int64) {
	for _, t := range l.tracks {
		n += max(t.Lacks, 1)
	}
	return n
}

func newsOf(kind api.SyncKind, vm VM, left int64) api.SyncNews {
	return api.SyncNews{Kind: kind, Device: vm.Owner, DeviceName: vm.OwnerName, Hydration: vm.State != Whole, VMs: []api.SyncVM{{ID: vm.ID, Name: vm.Name}}, Remaining: left}
}
