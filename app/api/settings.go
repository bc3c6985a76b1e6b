package api

import "time"

// SetVM asks to change settings of a VM. What is empty stays as it is.
type SetVM struct {
	VM string `json:"vm"` // ID or name
	// Sync is SyncOne or SyncTwo.
	Sync string `json:"sync,omitempty"`
	// Name is what the VM is called from now on.
	Name string `json:"name,omitempty"`
	// CPUs and MemoryMiB can only be changed while the VM is stopped, and not suspended.
	CPUs      int   `json:"cpus,omitempty"`
	MemoryMiB int64 `json:"memory_mib,omitempty"`
	// Pause is for how long its guest may stand still in a switch, from 50 ms to 10 min.
	Pause time.Duration `json:"pause_ns,omitempty"`
}
