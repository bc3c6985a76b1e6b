package api

import "time"

// SyncKind is what a person is told of a sync that takes long.
type SyncKind string

// What is told of a sync. Of one sync each is told at most once, whatever the links and this device do meanwhile.
const (
	SyncBegun  SyncKind = "begun"
	SyncHalf   SyncKind = "half"   // of one that begun was told of
	SyncBehind SyncKind = "behind" // the device can't keep up with what the VMs write, and hasn't for a while
	SyncDone   SyncKind = "done"   // of one that begun or behind was told of
	SyncWaits  SyncKind = "waits"  // what a running VM lacks is on no device that can be reached
	SyncStay   SyncKind = "stay"   // the device, which owns the VM, still needs some of its disk from the one that tells: that must be left on
	SyncLeave  SyncKind = "leave"  // of one that stay was told of: it doesn't any more, by its own word
)

// SyncNews is worth a notification. The engine that tells it owns the VMs, or is the device itself.
type SyncNews struct {
	Kind SyncKind `json:"kind"`
	// Device is the one that gets what it lacks of VMs; Self says that it is the one that tells.
	Device     string   `json:"device"`
	DeviceName string   `json:"device_name"`
	Self       bool     `json:"self,omitempty"`
	VMs        []SyncVM `json:"vms"`
	// Hydration says that it owns them already, and lacks some of them. From are then the names of the devices that are still needed.
	Hydration bool     `json:"hydration,omitempty"`
	From      []string `json:"from,omitempty"`
	// Lag says, with SyncDone, that it had fallen behind.
	Lag bool `json:"lag,omitempty"`
	// Remaining is in bytes of all VMs, Rate in bytes a second; ETA is zero when unknown. Remaining isn't zero with SyncDone if the
	// VMs have written since what has arrived, and with SyncLeave if the one that tells is needed for other VMs still.
	Remaining int64         `json:"remaining"`
	Rate      int64         `json:"rate"`
	ETA       time.Duration `json:"eta_ns,omitempty"`
}

// SyncVM is one of the VMs that news are about.
type SyncVM struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}
