package app

import (
	"fmt"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/app/waychoice"
)

// Which way a VM best takes to another device (package waychoice), by what is known of the guest and of what was seen when its memory was last on its
// way between the two; or else by what was measured when somebody looked (gauge.go). Without either nothing is guessed.

// tripKept is for how long what was seen of a guest's memory on its way is believed.
const tripKept = time.Hour

// dirtyRough is by how much what a guest was seen to write in one second may be too high for a line of which nothing but its own speed is known, as a factor: memory
// is compressed on its way, and what is written again and again counts once a pass, which takes longer than a second there. A teleport is called hopeless only beyond that.
const dirtyRough = 4

// trip is what was seen of it, by either side.
type trip struct {
	memory int64 // bytes that left
	rate   int64 // bytes a second
	dirty  int64 // bytes written anew a second
	// pause is for how long it would have stood still, if the attempt came to nothing because of that.
	pause time.Duration
	at    time.Time
}

// noteTripLocked keeps what switch s says of its way. It is called with v.mu held.
func (v *vm) noteTripLocked(s api.Switch) {
	if s.Estimate.Rate <= 0 {
		return
	}
	other := s.From
	if other == v.e.host.ID() {
		other = s.To
	}
	if v.trips == nil {
		v.trips = map[string]trip{}
	}
	v.trips[other] = trip{memory: s.Memory, rate: s.Estimate.Rate, dirty: s.Estimate.DirtyRate, at: time.Now()}
}

// noteTooBusy keeps that a switch came to nothing because the guest would have stood still for too long.
func (v *vm) noteTooBusy(s api.Switch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.noteTripLocked(s)
	for other, t := range v.trips {
		if other == s.From || other == s.To {
			t.pause = s.Estimate.Pause
			v.trips[other] = t
		}
	}
}

// ways are the ways from one device to the other, one of which is this one or has the VM, and which is the best. found is what a preflight has found. by is what
// the figures go by, nil if nothing is known.
func (v *vm) ways(from, to string, found preflight.Report) (c waychoice.Choice, by *api.WayBasis) {
	f := waychoice.Facts{Allowed: v.mayStandStill(to)}
	r, ok := v.record()
	if !ok {
		return c, nil
	}
	if s, err := specOf(r); err == nil {
		f.Memory = s.MemoryKiB << 10
	}
	f.Disk = int64(min(r.Replicas[to].StaleBlocks, uint64(r.DiskBytes)/blockSize) * blockSize)
	if g := v.currentGuest(); g != nil && v.owner() {
		if touched := g.Resident(); touched > 0 {
			f.Memory = min(f.Memory, touched)
		}
	}
	other := from
	if other == v.e.host.ID() {
		other = to
	}
	v.mu.Lock()
	t := v.trips[other]
	v.mu.Unlock()
	if time.Since(t.at) < tripKept {
		f.Rate, f.Dirty, f.Seen = t.rate, t.dirty, t.pause
		by = &api.WayBasis{Rate: f.Rate, DirtyRate: f.Dirty, At: t.at, Trip: true}
	} else if g, ok := v.gaugedLately(other, tripKept); ok && g.Rate > 0 {
		f.Rate, f.Dirty = g.Rate, g.Dirty/dirtyRough
		if g.Memory > 0 {
			f.Memory = min(f.Memory, g.Memory)
		}
		by = &api.WayBasis{Rate: g.Rate, DirtyRate: g.Dirty, At: g.at}
	}
	for _, p := range v.e.host.Peers() {
		if p.ID == other {
			f.RoundTrip = p.RTT
			if by != nil {
				by.RoundTrip = p.RTT
			}
		}
	}
	for _, id := range []string{from, to} {
		if !v.e.deviceAsKnown(id).PostCopy {
			f.Never = append(f.Never, waychoice.PostCopy)
		}
	}
	for _, x := range found.Findings {
		switch {
		case x.Stops && x.Left == preflight.WaySuspend:
			f.Never = append(f.Never, waychoice.Teleport, waychoice.PostCopy)
		case x.Stops:
			f.Never = append(f.Never, waychoice.Teleport, waychoice.PostCopy, waychoice.Suspend)
		}
	}
	return waychoice.Choose(f), by
}

// chosenWay is how a VM goes to a device where the person leaves that to Tagalong: it is suspended where a teleport came to nothing within the hour, and
// would again. What was seen of one that went well is no reason: its last passes are so short that how much was written in them says little. The way in which memory can be
// lost is never taken unasked.
func (v *vm) chosenWay(from, to string) api.Way {
	other := from
	if other == v.e.host.ID() {
		other = to
	}
	v.mu.Lock()
	t := v.trips[other]
	v.mu.Unlock()
	if r, ok := v.record(); !ok || r.State != string(api.VMRunning) || t.pause == 0 || time.Since(t.at) >= tripKept {
		return api.WayChosen
	}
	c, _ := v.ways(from, to, preflight.Report{})
	suspends := slices.ContainsFunc(c.Ways, func(e waychoice.Estimate) bool { return e.Way == waychoice.Suspend && e.Possible })
	if c.Way == "" || c.Way == waychoice.Teleport || !suspends {
		return api.WayChosen
	}
	return api.WaySuspend
}

// suspendedWay begins such a switch, and says of it whether its way was chosen for the person.
func (v *vm) suspendedWay(chosen bool, begin func() (*api.Switch, error)) (*api.Switch, error) {
	s, err := begin()
	if err != nil || !chosen {
		return s, err
	}
	now, ok := v.updateSwitch(func(r *switchRun) { r.s.Chosen = r.s.ID == s.ID })
	if !ok {
		return s, nil // it has ended already
	}
	v.publishSwitch("switch.way", now, fmt.Sprintf("While it runs, %s would stand still for longer than it may: so it is suspended, and goes on there.", now.VMName))
	return &now, nil
}

// deviceAsKnown is what a device says of itself, without looking again.
func (e *Engine) deviceAsKnown(id string) preflight.Device {
	if id == e.host.ID() {
		return e.knownDevice()
	}
	return e.otherDevice(id)
}

// mayStandStill is for how long the guest may stand still in a switch to the device when it comes to that.
func (v *vm) mayStandStill(to string) time.Duration {
	allowed := v.allowedPause(to)
	for _, d := range switching.Usual.Longer {
		allowed = max(allowed, d)
	}
	return max(allowed, switching.Usual.Pause)
}

// compared are the ways as the person compares them.
func compared(c waychoice.Choice) []api.WayEstimate {
	var list []api.WayEstimate
	for _, e := range c.Ways {
		list = append(list, api.WayEstimate{Way: api.Way(e.Way), Possible: e.Possible, Bytes: e.Bytes, There: e.There, Pause: e.Pause, Full: e.Full})
	}
	return list
}

// offered are the ways that are left, the best first, when a teleport came to nothing.
func offered(c waychoice.Choice) []api.Way {
	var list []api.Way
	for _, e := range c.Ways {
		switch {
		case !e.Possible || e.Way == waychoice.Teleport:
		case e.Way == c.Way:
			list = append([]api.Way{api.Way(e.Way)}, list...)
		default:
			list = append(list, api.Way(e.Way))
		}
	}
	return list
}

// otherWays are the ways that are left for switch r, which came to nothing for that reason.
func (v *vm) otherWays(r *switchRun, reason string) []api.Way {
	if r == nil {
		return nil
	}
	s := v.runNow(r)
	switch reason {
	case reasonTooBusy:
		v.noteTooBusy(s)
		c, _ := v.ways(s.From, s.To, preflight.Report{})
		return offered(c)
	case reasonMemory:
		found, err := v.checkSwitch(s.From, s.To, v.e.deviceAsKnown)
		if stops := found.Stops(); err == nil && stops != nil && stops.Left != preflight.WaySuspend {
			return nil // there will never be room
		}
		return []api.Way{api.WaySuspend} // it waits there until there is room
	}
	return nil
}

// whyWay says in a sentence why a way is the best; "" where there is nothing to say.
func whyWay(c waychoice.Choice, vm string) string {
	switch c.Why {
	case waychoice.TooBusy:
		return fmt.Sprintf("While it runs, %s would stand still for longer than it may.", vm)
	case waychoice.MuchSooner:
		return "It is there far sooner than in any other way. Should the device that it left die before all of its memory is there, what is open in it is lost."
	case waychoice.Impossible:
		return fmt.Sprintf("%s can't move while it runs.", vm)
	}
	return ""
}
