package standing

import (
	"encoding/json"
	"fmt"
)

// Disk is how the owner's own disk gets on, at the time of the record that it is in. It travels in the VM's record.
type Disk struct {
	// Lacks is how many bytes of it are elsewhere still; 0: all of it is there.
	Lacks int64
	// Needs are the devices that mustn't leave before it is whole: what it lacks isn't known to be anywhere else.
	Needs []string
}

// diskForm is what is written.
type diskForm struct {
	V     int      `json:"v"`
	Lacks int64    `json:"lacks,omitempty"`
	Needs []string `json:"needs,omitempty"`
}

const (
	maxDisk  = 1 << 60 // bytes
	maxNeeds = 64      // devices
	maxName  = 128     // bytes of a device's ID
)

// EncodeDisk returns what DecodeDisk reads, for at most 64 devices: further ones aren't named.
func EncodeDisk(d Disk) string {
	// Nothing but a number and names in it, which always marshal.
	b, _ := json.Marshal(diskForm{V: version, Lacks: d.Lacks, Needs: d.Needs[:min(len(d.Needs), maxNeeds)]})
	return string(b)
}

// DecodeDisk reads it. told is false of nothing: a program wrote that record which doesn't tell this. Errors: ErrVersion, or that it makes no
// sense; in either case nothing is known.
func DecodeDisk(raw string) (d Disk, told bool, err error) {
	if len(raw) == 0 {
		return d, false, nil
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal([]byte(raw), &head); err != nil {
		return d, false, fmt.Errorf("how the owner's disk gets on: %w", err)
	}
	if head.V != version {
		return d, false, fmt.Errorf("how the owner's disk gets on, form %d: %w", head.V, ErrVersion)
	}
	var f diskForm
	if err := json.Unmarshal([]byte(raw), &f); err != nil {
		return d, false, fmt.Errorf("how the owner's disk gets on: %w", err)
	}
	sane := f.Lacks >= 0 && f.Lacks <= maxDisk && len(f.Needs) <= maxNeeds
	for _, device := range f.Needs {
		sane = sane && device != "" && len(device) <= maxName
	}
	if !sane {
		return d, false, fmt.Errorf("how the owner's disk gets on: lacks %d, needs %d devices", f.Lacks, len(f.Needs))
	}
	return Disk{Lacks: f.Lacks, Needs: f.Needs}, true, nil
}
