package herald

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// form is the version of what Memory returns.
const form = 1

// Errors of New.
var (
	// ErrVersion: a newer program wrote the memory, which is better left as it is.
	ErrVersion = errors.New("herald: a newer program wrote what people were told")
	// ErrMemory: the memory makes no sense.
	ErrMemory = errors.New("herald: what people were told can't be read")
)

// MaxMemory bounds a memory, in bytes: thousands of VMs and devices.
const MaxMemory = 4 << 20

// memory is what was told of what isn't over, and when that was.
type memory struct {
	V      int         `json:"v"`
	Things []keptThing `json:"things,omitempty"`
	Tracks []keptTrack `json:"copies,omitempty"`
	Told   []keptTold  `json:"told,omitempty"`
}

type keptThing struct {
	Device string `json:"device"`
	What   what   `json:"what"`
	Told   bool   `json:"told,omitempty"`
	Half   bool   `json:"half,omitempty"`
	Wait   bool   `json:"wait,omitempty"`
}

type keptTrack struct {
	VM         string       `json:"vm"`
	VMName     string       `json:"vmName"`
	Device     string       `json:"device"`
	DeviceName string       `json:"deviceName"`
	What       what         `json:"what"`
	Named      bool         `json:"named,omitempty"`
	Mine       bool         `json:"mine,omitempty"`
	Start      api.Position `json:"start"`
	Peak       int64        `json:"peak"`
}

type keptTold struct {
	Device string    `json:"device"`
	What   what      `json:"what"`
	At     time.Time `json:"at"`
}

// Memory returns what New needs to go on, nil if it is the same as when Kept was last called.
func (h *Herald) Memory() []byte {
	if !h.dirty {
		return nil
	}
	m := memory{V: form}
	for _, at := range h.topics() {
		if g := h.things[at]; *g != (thing{}) {
			m.Things = append(m.Things, keptThing{at.device, at.what, g.told, g.half, g.wait})
		}
		for _, t := range h.of(at) {
			if *h.things[at] != (thing{}) {
				m.Tracks = append(m.Tracks, keptTrack{t.VM, t.VMName, t.Device, t.DeviceName, t.what, t.named, t.Mine, t.start, t.peak})
			}
		}
	}
	for at, when := range h.told {
		m.Told = append(m.Told, keptTold{at.device, at.what, when.UTC().Round(0)})
	}
	slices.SortFunc(m.Told, func(a, b keptTold) int { return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.What, b.What)) })
	b, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("herald: %v", err)) // strings, numbers and times of this age always marshal
	}
	return b
}

// Kept says that what Memory returned is safe.
func (h *Herald) Kept() { h.dirty = false }

// remember takes up what Memory returned, all or nothing of it.
func (h *Herald) remember(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	var head struct {
		V int `json:"v"`
	}
	if len(b) > MaxMemory {
		return fmt.Errorf("%w: %d bytes", ErrMemory, len(b))
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	if head.V > form {
		return fmt.Errorf("%w: form %d", ErrVersion, head.V)
	}
	var m memory
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	if head.V < 1 {
		return fmt.Errorf("%w: form %d", ErrMemory, head.V)
	}
	for _, k := range m.Things {
		if !slices.Contains(kinds, k.What) {
			return fmt.Errorf("%w: %q", ErrMemory, k.What)
		}
	}
	for _, k := range m.Tracks {
		if !slices.Contains(kinds, k.What) || k.Peak < 0 {
			return fmt.Errorf("%w: %q, %d bytes", ErrMemory, k.What, k.Peak)
		}
	}
	for _, k := range m.Things {
		h.things[topic{k.Device, k.What}] = &thing{k.Told, k.Half, k.Wait}
	}
	for _, k := range m.Tracks {
		at := topic{k.Device, k.What}
		if h.things[at] == nil {
			h.things[at] = &thing{}
		}
		c := Copy{VM: k.VM, VMName: k.VMName, Device: k.Device, DeviceName: k.DeviceName, Hydration: k.What == aHydration, Mine: k.Mine}
		h.tracks[place{k.VM, k.Device, c.Hydration}] = &track{Copy: c, what: k.What, told: h.things[at].told, named: k.Named, start: k.Start, peak: k.Peak}
	}
	for _, k := range m.Told {
		h.told[topic{k.Device, k.What}] = k.At
	}
	return nil
}
