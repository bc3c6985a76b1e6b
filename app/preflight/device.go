package preflight

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// version of the form in which a Device travels.
const version = 1

// Bounds of what a device may say.
const (
	MaxEncoded = 16 << 10 // bytes
	maxList    = 256      // CPU models, or machines
	maxWord    = 64       // bytes of each, and of the other words
	maxBytes   = 1 << 60  // of memory or disk
)

var (
	// ErrVersion says that a newer program wrote it.
	ErrVersion = errors.New("preflight: written by a newer program")
	// ErrInvalid says that what a device says of itself makes no sense.
	ErrInvalid = errors.New("preflight: makes no sense")
)

// Device is what a device says of itself. An empty field is one that it doesn't say.
type Device struct {
	// Name is what the person calls it. It doesn't travel.
	Name string `json:"-"`
	// Probed says that it has looked: only then an empty Hypervisor means that there is none.
	Probed     bool   `json:"probed,omitempty"`
	Hypervisor string `json:"hypervisor,omitempty"` // its version
	Accel      string `json:"accel,omitempty"`      // "tcg" is software emulation
	Vendor     string `json:"vendor,omitempty"`     // the processor's
	// CPUModels are the named processors that a guest can have here wholly, Machines the versioned machine types.
	CPUModels []string `json:"cpus,omitempty"`
	Machines  []string `json:"machines,omitempty"`
	// Hardware is the newest generation of virtual hardware that its program knows.
	Hardware int `json:"hardware,omitempty"`
	// Firmware is the hash of its UEFI. NoFirmware says that it has looked and there is none that suits.
	Firmware   string `json:"firmware,omitempty"`
	NoFirmware bool   `json:"no_firmware,omitempty"`
	// PostCopy says that a guest can run here before all of its memory is here.
	PostCopy bool `json:"post_copy,omitempty"`
	// Bridge is the network bridge that guests can be on here. NoBridge is why there is none, in a few words.
	Bridge   string `json:"bridge,omitempty"`
	NoBridge string `json:"no_bridge,omitempty"`
	// Memory is all of its memory, FreeMemory and FreeDisk what there is now, in bytes; of a record in the directory only the first.
	Memory     int64 `json:"memory,omitempty"`
	FreeMemory int64 `json:"free_memory,omitempty"`
	FreeDisk   int64 `json:"free_disk,omitempty"`
}

// form is what is written.
type form struct {
	V int `json:"v"`
	Device
}

// Encode returns what Decode reads: at most MaxEncoded bytes. Of lists that are too long, the end is left out.
func Encode(d Device) []byte {
	d.CPUModels, d.Machines = fitting(d.CPUModels), fitting(d.Machines)
	d.NoBridge = strings.ToValidUTF8(d.NoBridge[:min(len(d.NoBridge), maxWord)], "")
	b, _ := json.Marshal(form{version, d}) // it has only words and numbers
	return b
}

// revision is how QEMU numbers the revisions of a CPU model. A VM is given the model itself.
var revision = regexp.MustCompile(`-v[0-9]+$`)

// fitting is what of a list may travel: names of few letters, without those that only number a model's revisions.
func fitting(list []string) []string {
	var fit []string
	size := 0
	for _, w := range list {
		if size += len(w) + len(`"",`); len(fit) == maxList || size > MaxEncoded/3 {
			break
		}
		if w != "" && len(w) <= maxWord && plain(w) && !revision.MatchString(w) {
			fit = append(fit, w)
		}
	}
	return fit
}

func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// Decode reads what a device says. said is false of nothing: a program that doesn't tell. Errors: ErrVersion, ErrInvalid; in either case
// nothing is known.
func Decode(raw []byte) (d Device, said bool, err error) {
	switch {
	case len(raw) == 0:
		return d, false, nil
	case len(raw) > MaxEncoded:
		return d, false, fmt.Errorf("%d bytes: %w", len(raw), ErrInvalid)
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return d, false, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if head.V > version {
		return d, false, fmt.Errorf("form %d: %w", head.V, ErrVersion)
	}
	var f form
	if err := json.Unmarshal(raw, &f); err != nil {
		return d, false, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	d = f.Device
	words := slices.Concat(d.CPUModels, d.Machines, []string{d.Hypervisor, d.Accel, d.Vendor, d.Bridge, d.Firmware})
	bad := head.V < 1 || len(d.CPUModels) > maxList || len(d.Machines) > maxList || len(d.NoBridge) > maxWord || d.Hardware < 0
	for _, w := range words {
		bad = bad || len(w) > maxWord || !plain(w) && w != ""
	}
	bad = bad || strings.ContainsFunc(d.NoBridge, func(r rune) bool { return r < ' ' || r == 0x7f })
	for _, n := range []int64{d.Memory, d.FreeMemory, d.FreeDisk} {
		bad = bad || n < 0 || n > maxBytes
	}
	if bad {
		return Device{}, false, ErrInvalid
	}
	return d, true, nil
}
