package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
)

// How a device stands to the fleet.
const (
	standsIn   = "in"
	standsOut  = "out"  // removed, and doesn't know as far as this device knows
	standsTold = "told" // removed, and knows
	standsLeft = "left" // by itself
	standsBack = "back" // of the fleet that this device has left
)

// followMembers brings the network in step with who is in the fleet, whenever that may have changed, and tells the person.
func (e *Engine) followMembers() {
	// One at a time: an older look that came later would tell of devices that come and go which don't.
	e.following.Lock()
	defer e.following.Unlock()
	now := e.whoStands()
	e.mu.Lock()
	before := e.standing
	e.standing = now
	e.mu.Unlock()
	if maps.Equal(before, now) {
		return
	}
	e.membersChanged()
	if before == nil {
		return
	}
	for _, m := range slices.Concat(e.dir.Members(), e.dir.RemovedMembers()) {
		if was, is := before[m.ID], now[m.ID]; was != is {
			e.tellStanding(m, was, is)
		}
	}
}

// whoStands tells who is in the fleet and who has left it.
func (e *Engine) whoStands() map[string]string {
	now := map[string]string{}
	for _, m := range e.dir.Former() {
		now[m.ID] = standsBack
	}
	for _, m := range slices.Concat(e.dir.Members(), e.dir.RemovedMembers()) {
		switch {
		case !m.Removed:
			now[m.ID] = standsIn
		case m.By == m.ID:
			now[m.ID] = standsLeft
		case m.Told:
			now[m.ID] = standsTold
		default:
			now[m.ID] = standsOut
		}
	}
	return now
}

// tellStanding publishes what became of a device.
func (e *Engine) tellStanding(m directory.Member, was, is string) {
	ev, name := api.Event{Device: m.ID}, e.deviceName(m.ID)
	switch {
	case is == standsIn:
		ev.Kind, ev.Text = "device.joined", name+" is in the fleet."
	case is == standsLeft && was == standsIn:
		ev.Kind, ev.Text = "device.left", name+" has left the fleet."
	case is == standsOut && m.By != e.host.ID():
		ev.Kind, ev.Text = "device.removed", name+" was removed by "+e.deviceName(m.By)+"."
	case was == standsOut && m.Wipe:
		ev.Kind, ev.Text = "device.wiped", name+" has deleted everything that it had of the fleet."
	case was == standsOut:
		ev.Kind, ev.Text = "device.told", name+" knows that it was removed."
	default:
		return
	}
	e.hub.publish(ev)
}

// membersChanged lets the network and the owned VMs know that devices came or went.
func (e *Engine) membersChanged() {
	e.host.AllowChanged()
	for _, v := range e.allVMs() {
		v.syncFeeds()
	}
}

// allVMs are the VMs of which this device has something.
func (e *Engine) allVMs() []*vm {
	e.mu.Lock()
	defer e.mu.Unlock()
	vms := make([]*vm, 0, len(e.vms))
	for _, v := range e.vms {
		vms = append(vms, v)
	}
	return vms
}

// refreshDevice writes this device's record anew when it listens elsewhere: that is where those look who never met it.
func (e *Engine) refreshDevice() {
	now := slices.Sorted(slices.Values(e.host.Addrs()))
	e.mu.Lock()
	same := slices.Equal(e.announced, now)
	e.mu.Unlock()
	if !same {
		e.announce()
	}
}

// RemoveDevice implements api.Engine: it takes a device out of the fleet, here at once, on the others at the next contact.
func (e *Engine) RemoveDevice(_ context.Context, req api.RemoveDevice) error {
	id, gone, err := e.findAnyDevice(req.Device)
	if err != nil {
		return err
	}
	if id == e.host.ID() {
		return errConflict("That is this device.", "Take it out of the fleet with: tagalong leave")
	}
	name := e.deviceName(id)
	if gone && !req.Wipe {
		return errConflict(name+" was removed already.", "")
	}
	var owns []string
	for _, r := range e.records() {
		if _, owner, ok := e.dir.Owner(r.ID); ok && owner == id {
			owns = append(owns, r.Name)
		}
	}
	if len(owns) > 0 && !req.Anyway && !gone {
		sort.Strings(owns)
		return errConflict(strings.Join(owns, ", ")+pick(len(owns), " is", " are")+" on "+name+".",
			"Switch to another device first. If "+name+" is lost: tagalong devices remove "+strconv.Quote(name)+" --anyway, and take over what is here.")
	}
	if err := e.dir.RemoveMember(id, req.Wipe); err != nil {
		return fmt.Errorf("remove the device: %w", err)
	}
	e.followMembers()
	text := name + " was removed."
	if req.Wipe {
		text += " It deletes what it has of the fleet as soon as it is reached."
	}
	if len(owns) > 0 {
		text += " " + strings.Join(owns, ", ") + " can be taken over now."
	}
	e.hub.publish(api.Event{Kind: "device.removed", Device: id, Text: text})
	return nil
}

// findAnyDevice finds a device by name or ID, also one that was removed and hasn't been told yet.
func (e *Engine) findAnyDevice(name string) (id string, gone bool, err error) {
	id, err = e.findDevice(name)
	if err == nil || errors.Is(err, &api.Error{Code: api.CodeConflict}) {
		return id, false, err
	}
	for _, m := range e.removedUntold() {
		if m.ID == name || e.deviceName(m.ID) == name {
			return m.ID, true, nil
		}
	}
	return "", false, err
}

// removedUntold are the devices that were removed and don't know yet, as far as this one knows. One that left by itself knows.
func (e *Engine) removedUntold() []directory.Member {
	return slices.DeleteFunc(e.dir.RemovedMembers(), func(m directory.Member) bool { return m.Told || m.By == m.ID })
}

// removedDevices are shown until they were told.
func (e *Engine) removedDevices() []api.Device {
	var out []api.Device
	for _, m := range e.removedUntold() {
		out = append(out, api.Device{ID: m.ID, Name: e.deviceName(m.ID), Removed: true, Wipe: m.Wipe})
	}
	return out
}
