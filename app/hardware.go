package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// surveyor is a hypervisor that can tell what it can give to a guest here.
type surveyor interface {
	Survey(ctx context.Context) (hypervisor.Survey, error)
}

// bridger is a hypervisor that can put guests on this device's network bridges.
type bridger interface {
	// Bridges are those that may lead to the local network, TryBridge says why a guest can't be on one.
	Bridges() []string
	TryBridge(bridge string) error
}

const (
	// surveyAfter is how long an engine that nobody asks waits with its survey: VMs that are started right away go first.
	surveyAfter = 3 * time.Second
	// surveyEvery is how often it is looked whether another hypervisor was installed since.
	surveyEvery = time.Minute
	// surveyTimeout bounds it.
	surveyTimeout = 40 * time.Second
)

// hardware is what this device says of itself to the fleet: what decides whether a running VM can come here.
type hardware struct {
	mu     sync.Mutex
	device preflight.Device // guarded by mu, as what follows
	bridge string           // the person's choice: "" is for Tagalong to find one
	said   []byte           // in this device's record
	of     hypervisor.Facts // what the last survey was of
}

// survey is what the hypervisor can give to a guest here; its zero value if it doesn't say.
func (e *Engine) survey(ctx context.Context) (hypervisor.Survey, error) {
	h, ok := e.opt.Hypervisor.(surveyor)
	if !ok {
		return hypervisor.Survey{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	return h.Survey(ctx)
}

// followHardware finds out what this device can give to guests and says so in its record.
func (e *Engine) followHardware(ctx context.Context) error {
	wait := time.NewTimer(surveyAfter)
	defer wait.Stop()
	changed, stop := e.dir.Changed()
	defer stop()
	known := map[string]bool{}
	e.tellUnfit(known, true)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
			e.lookAgain(ctx)
			wait.Reset(surveyEvery)
		case <-changed:
			e.tellUnfit(known, false)
		}
	}
}

// lookAtHardware surveys this device and says whether that is news to its record.
func (e *Engine) lookAtHardware(ctx context.Context) (news bool) {
	d := preflight.Device{Hardware: hypervisor.HardwareNow}
	var of hypervisor.Facts
	facts, err := e.facts.get(ctx, e.opt.Hypervisor)
	switch {
	case err == nil:
		d.Probed, d.Hypervisor, d.Accel, of = true, facts.Version, facts.Accel, facts
		s, err := e.survey(ctx)
		if err != nil {
			e.log.Warn("Asking the hypervisor what it can give to guests failed", "error", err)
			break
		}
		d.CPUModels, d.Machines, d.Vendor, d.Firmware = s.CPUModels, s.Machines, s.Vendor, s.Firmware.Hash
		d.PostCopy = s.PostCopy
		d.NoFirmware = len(s.Machines) > 0 && s.Firmware.Hash == ""
	case errors.Is(err, hypervisor.ErrMissing), errors.Is(err, hypervisor.ErrTooOld):
		d.Probed = true
	}
	d.Memory = totalMemory()
	d.Bridge, d.NoBridge = e.findBridge()
	e.hardware.mu.Lock()
	defer e.hardware.mu.Unlock()
	e.hardware.device, e.hardware.of = d, of
	said := preflight.Encode(d)
	news = !slices.Equal(said, e.hardware.said)
	e.hardware.said = said
	return news
}

// saidHardware is what this device's record says: as before, until it was looked again.
func (e *Engine) saidHardware() directory.Carried {
	e.hardware.mu.Lock()
	defer e.hardware.mu.Unlock()
	if e.hardware.said != nil {
		return directory.Carried(e.hardware.said)
	}
	for _, r := range e.dir.Devices() {
		if r.ID == e.host.ID() {
			return r.Hardware
		}
	}
	return ""
}

// knownDevice is what this device can give to a guest, as far as it is known by now.
func (e *Engine) knownDevice() preflight.Device {
	e.hardware.mu.Lock()
	defer e.hardware.mu.Unlock()
	return e.hardware.device
}

// lookAgain surveys this device, and says in its record what is new, unless the hypervisor is the one of the last survey.
func (e *Engine) lookAgain(ctx context.Context) {
	facts, err := e.facts.get(ctx, e.opt.Hypervisor)
	e.hardware.mu.Lock()
	same := err == nil && e.hardware.device.Probed && facts == e.hardware.of
	e.hardware.mu.Unlock()
	if !same && e.lookAtHardware(ctx) {
		e.spawn(func() { e.announce() })
	}
}

// thisDevice is what this device can give to a guest now. It waits for a survey as lookAgain does.
func (e *Engine) thisDevice(ctx context.Context) preflight.Device {
	e.lookAgain(ctx)
	d := e.knownDevice()
	d.Name = e.name
	d.FreeMemory = e.free()
	d.FreeDisk, _ = vfs.OS(e.opt.DataDir).Free() // 0 if that can't be told
	return d
}

// otherDevice is what another device has said of itself in its record; all but its name may be unknown.
func (e *Engine) otherDevice(id string) preflight.Device {
	var d preflight.Device
	for _, r := range e.dir.Devices() {
		if r.ID != id {
			continue
		}
		var err error
		if d, _, err = preflight.Decode([]byte(r.Hardware)); err != nil {
			// It is asked for often, and a newer program's word is no trouble.
			e.log.Debug("What a device says of its hardware can't be read", "device", id, "error", err)
			d = preflight.Device{}
		}
	}
	d.Name = e.deviceName(id)
	return d
}

// newCPU is the CPU model of a new VM: the one that the person wants, or the newest that all devices of the fleet can be.
func (e *Engine) newCPU(ctx context.Context, wanted string) (string, error) {
	here := e.thisDevice(ctx)
	if wanted != "" {
		if len(preflight.Cant(wanted, []preflight.Device{here})) > 0 {
			return "", &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("This device can't be a processor of the kind %q.", wanted),
				Next: "Leave that out, and the newest is taken that all your devices can be."}
		}
		return wanted, nil
	}
	fleet := []preflight.Device{here}
	for _, m := range e.dir.Members() {
		if m.ID != e.host.ID() {
			fleet = append(fleet, e.otherDevice(m.ID))
		}
	}
	return preflight.Baseline(fleet), nil
}

// forkOf names the last point at which the VM's history went on from before something that its guest had seen, or may have.
func (e *Engine) forkOf(vm string) string {
	for _, t := range slices.Backward(e.dir.Chain(vm)) {
		switch t.Kind {
		case directory.KindTakeover, directory.KindKept, directory.KindResolved:
			return fmt.Sprintf("%d/%s", t.Term, t.To)
		}
	}
	return ""
}
