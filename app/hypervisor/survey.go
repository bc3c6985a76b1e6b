package hypervisor

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/zeebo/blake3"
)

// Survey is what this device can give a guest, beyond what [Facts] say of every guest: what decides, before anything moves, whether
// a running VM can come here.
type Survey struct {
	// CPUModels are the named CPU models that can be had here wholly, feature by feature, under the accelerator of the Facts; in order.
	CPUModels []string
	// Machines are the versioned machine types, in order.
	Machines []string
	// Vendor is the processor's, as it says itself ("GenuineIntel"); "" if unknown.
	Vendor string
	// Firmware is the UEFI; its zero value is none.
	Firmware Firmware
	// PostCopy says that a guest can run here before all of its memory is here: see PostCopier.
	PostCopy bool
}

// Firmware is an UEFI for guests.
type Firmware struct {
	Code string // file with its program, which guests only read, FirmwareCodeBytes long
	Vars string // file with a fresh store of its variables, FirmwareVarsBytes long
	Hash string // of the program, 64 hexadecimal digits
}

// Sizes of the firmware's two parts, in bytes. They fit exactly below 4 GiB, one after the other, so that firmware of other sizes is
// another generation's.
const (
	FirmwareCodeBytes = 3653632
	FirmwareVarsBytes = 540672
)

// Seen is a hash of all of the configuration that the guest can see, 64 hexadecimal digits: two devices may pass the running guest
// on only if theirs are equal.
func (c Config) Seen() (string, error) {
	type disk struct {
		ID    string   `json:"id"`
		Kind  DiskKind `json:"kind"`
		Bytes int64    `json:"bytes"`
	}
	seen := struct {
		Hardware  int    `json:"hardware"`
		VM        string `json:"vm"`
		CPUs      int    `json:"cpus"`
		MemoryKiB int64  `json:"memory_kib"`
		Machine   string `json:"machine"`
		CPU       string `json:"cpu"`
		Firmware  string `json:"firmware"`
		Screen    bool   `json:"screen"`
		Network   bool   `json:"network"`
		Disks     []disk `json:"disks"`
	}{max(c.Hardware, HardwareFirst), c.VM, c.CPUs, c.MemoryKiB, c.Machine, c.CPU, c.Firmware, c.Screen, c.Network, nil}
	if seen.Firmware == "" {
		seen.Firmware = FirmwareBIOS
	}
	for _, d := range c.Disks {
		seen.Disks = append(seen.Disks, disk{d.ID, d.Kind, d.Bytes})
	}
	b, err := json.Marshal(seen)
	if err != nil {
		return "", fmt.Errorf("hypervisor: describe the virtual hardware: %w", err)
	}
	sum := blake3.Sum256(append([]byte("tagalong virtual hardware v1\x00"), b...))
	return hex.EncodeToString(sum[:]), nil
}
