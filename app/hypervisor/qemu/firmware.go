package qemu

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/hypervisor"
)

// descriptor is what is read of QEMU's firmware descriptors (docs/interop/firmware.json).
type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Device     string   `json:"device"`
		Executable fileSpec `json:"executable"`
		Template   fileSpec `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

type fileSpec struct {
	Filename string `json:"filename"`
	Format   string `json:"format"`
}

// maxDescriptor bounds a descriptor that is read, in bytes.
const maxDescriptor = 64 << 10

// descriptorDirs is where distributions put descriptors, and where the person may put others, which go first.
func descriptorDirs(binary string) []string {
	return []string{
		"/etc/qemu/firmware", "/usr/share/qemu/firmware", "/usr/local/share/qemu/firmware",
		filepath.Join(filepath.Dir(binary), "..", "share", "qemu", "firmware"),
	}
}

// findFirmware is the first UEFI that suits, in the order in which descriptors are to be taken. Errors: hypervisor.ErrNoFirmware.
func findFirmware(dirs ...string) (hypervisor.Firmware, error) {
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			continue
		}
		slices.Sort(files)
		for _, file := range files {
			if f, ok := described(file); ok {
				return f, nil
			}
		}
	}
	return hypervisor.Firmware{}, fmt.Errorf("%w: none of the kind that suits is described in %v", hypervisor.ErrNoFirmware, dirs)
}

// described is the firmware of a descriptor, if it is one for our machines: for x86-64, in flash, without SMM and keys enrolled
// already, and of the sizes that every device has to have.
func described(file string) (f hypervisor.Firmware, ok bool) {
	var d descriptor
	b, err := readAtMost(file, maxDescriptor)
	if err != nil || json.Unmarshal(b, &d) != nil {
		return f, false
	}
	ours := false
	for _, t := range d.Targets {
		ours = ours || t.Architecture == "x86_64" && slices.Contains(t.Machines, "pc-q35-*")
	}
	switch {
	case !ours, !slices.Contains(d.Interfaces, "uefi"), d.Mapping.Device != "flash",
		d.Mapping.Executable.Format != "raw", d.Mapping.Template.Format != "raw",
		slices.Contains(d.Features, "requires-smm"), slices.Contains(d.Features, "enrolled-keys"):
		return f, false
	}
	f = hypervisor.Firmware{Code: d.Mapping.Executable.Filename, Vars: d.Mapping.Template.Filename}
	code, err := readAtMost(f.Code, hypervisor.FirmwareCodeBytes)
	if err != nil || len(code) != hypervisor.FirmwareCodeBytes {
		return f, false
	}
	if info, err := os.Stat(f.Vars); err != nil || info.Size() != hypervisor.FirmwareVarsBytes {
		return f, false
	}
	sum := blake3.Sum256(code)
	f.Hash = hex.EncodeToString(sum[:])
	return f, true
}

var errTooLong = errors.New("file is too long")

// readAtMost reads a file that has limit bytes at most.
func readAtMost(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLong
	}
	return b, err
}
