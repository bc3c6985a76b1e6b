package api

import "time"

// Hydration says how far a VM's disk is from being whole on its owner, after a switch to a device that lacked some of it. Sizes are in bytes.
type Hydration struct {
	// Total was lacking at first (since the engine's last start), Remaining still is, Fetched has come over the network.
	Total     int64 `json:"total"`
	Remaining int64 `json:"remaining"`
	Fetched   int64 `json:"fetched"`
	// Rate is in bytes a second; ETA is zero when unknown.
	Rate int64         `json:"rate"`
	ETA  time.Duration `json:"eta_ns,omitempty"`
	// From are those that have what is lacking, or may have.
	From []HydrationHolder `json:"from"`
	// Waiting says that none of them is there: what the guest reads of the rest waits. Reads is how many of its reads wait now.
	Waiting bool `json:"waiting"`
	Reads   int  `json:"reads"`
	// Nobodys is how much of Remaining nobody has who is there now.
	Nobodys int64 `json:"nobodys,omitempty"`
	// Paused is why nothing comes but what the guest reads, "" if that isn't so: what the person set about syncing holds it back.
	Paused string `json:"paused,omitempty"`
	// Since is the position to which a rollback would go.
	Since Position `json:"since"`
}

// HydrationHolder is a device that the rest of a disk is fetched from.
type HydrationHolder struct {
	Device     string `json:"device"`
	DeviceName string `json:"device_name"`
	// Connected says that it answers. Needed says that the rest isn't known to be anywhere else: it mustn't be switched off yet.
	Connected bool `json:"connected"`
	Needed    bool `json:"needed"`
	// Helps says that it isn't there, and has some of what nobody has who is.
	Helps bool `json:"helps,omitempty"`
	// Rate is in bytes a second; Fetched came from it.
	Rate    int64 `json:"rate"`
	Fetched int64 `json:"fetched"`
}

// Lending says that another device, which owns a VM, needs the rest of its disk from this one, or fetches it from here; or of its guest's memory.
type Lending struct {
	To     string `json:"to"`
	ToName string `json:"to_name"`
	// Remaining is what it lacks, in bytes, as it said last; 0: it hasn't said yet.
	Remaining int64 `json:"remaining,omitempty"`
	// Needed says that it isn't known to be anywhere else: this device mustn't be switched off before all of it is there.
	Needed bool `json:"needed"`
	// Silent says that it can't be heard: it may have more by now.
	Silent bool `json:"silent,omitempty"`
	// Memory says that it is memory, which would be lost with this device's hypervisor. Remaining isn't known then.
	Memory bool `json:"memory,omitempty"`
}

// Rollback is what a person reads before a VM whose disk isn't whole goes back to what this device had of it before the switch.
type Rollback struct {
	VM     string `json:"vm"`
	VMName string `json:"vm_name"`
	// Position is what the disk is now, To what it would be again.
	Position Position `json:"position"`
	To       Position `json:"to"`
	// Written is how many bytes the guest has written here since the switch, which would be lost for good; Remaining is what was still to come.
	Written   int64 `json:"written"`
	Remaining int64 `json:"remaining"`
	// Running says that the VM runs, and would be stopped like by a pulled plug; Suspended that its saved memory would be lost.
	Running   bool `json:"running"`
	Suspended bool `json:"suspended"`
	// Holders have what the switch brought, or may have it: when one of them returns, the person has to choose.
	Holders []HydrationHolder `json:"holders"`
	// Token stands for all that was told but the figures that grow: RollBack refuses with CodeConflict if it isn't true any more.
	Token string `json:"token"`
}

// RollBackVM rolls a VM back after the person has read a Rollback. The VM isn't started.
type RollBackVM struct {
	VM    string `json:"vm"`
	Token string `json:"token"`
}
