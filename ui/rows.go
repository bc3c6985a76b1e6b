package ui

import (
	"sort"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
)

// index finds things of one status by ID.
type index struct {
	st    *api.Status
	asked map[string]bool
	up    bool
	byID  map[string]*api.Device
	// canShow and showing are the state's.
	canShow bool
	showing map[string]bool
}

func newIndex(st *api.Status, asked map[string]bool, up bool) *index {
	m := &index{st: st, asked: asked, up: up, byID: make(map[string]*api.Device, len(st.Devices))}
	for i := range st.Devices {
		m.byID[st.Devices[i].ID] = &st.Devices[i]
	}
	if m.byID[st.Device.ID] == nil {
		// The engine lists the others; this device is always in its own reach.
		self := st.Device
		self.Self = true
		m.byID[self.ID] = &self
	}
	return m
}

func (m *index) connected(device string) bool {
	d := m.byID[device]
	return d != nil && (d.Connected || d.Self)
}

func (m *index) vmRow(vm *api.VM, now time.Time) vmRow {
	r := vmRow{ID: vm.ID, Name: vm.Name, Here: vm.Here, Where: m.where(vm, now), Mood: vmMood(vm.State)}
	r.Detail = specText(vm.Spec)
	if !vm.Here {
		if own := replicaOf(vm, m.st.Device.ID); own != nil {
			r.Replica = t("replica.here", "State", m.ownCopy(vm, own, now))
		} else {
			r.Replica = t("replica.missing")
		}
	}
	r.Bar = m.switchBar(vm)
	if r.Bar != nil {
		r.Mood = moodBusy
	}
	if vm.Problem != nil {
		r.Problem = vmProblem(vm)
	} else if sw := vm.Switch; sw != nil && sw.Phase == api.PhaseFailed && sw.Error != nil {
		r.Problem = switchFailed(sw)
	}
	if r.Conflict = m.conflict(vm, now); r.Conflict != nil {
		r.Mood, r.Detail, r.Replica = moodChoice, "", "" // room for what matters now
	}
	if r.Problem != nil {
		r.Mood = moodTrouble
	}
	r.Points, r.PointList = pointsLine(vm.RestorePoints), m.points(vm, now)
	r.Disks = m.disks(vm)
	r.Switch = m.switchButton(vm, r.Bar != nil)
	r.Main, r.More = m.controls(vm, r.Bar != nil)
	m.otherWays(vm, &r)
	m.extras(vm, &r)
	m.second(vm, &r)
	m.unfit(vm, &r)
	m.hydration(vm, &r, now)
	m.damage(vm, &r)
	if vm.Here && vm.Verifying != nil && vm.Conflict == nil {
		r.Verified = verifyingText(vm.Verifying, now)
	}
	return r
}

// extras are the things that one can do with a VM besides running it.
func (m *index) extras(vm *api.VM, r *vmRow) {
	ok := m.up && !m.asked[vm.ID]
	// A hand-off that stands still for a lost device has a bar, and no end of its own.
	free := r.Bar == nil || vm.Problem != nil && vm.Problem.Remedy == api.RemedyTake
	if own := replicaOf(vm, m.st.Device.ID); !vm.Here && vm.Conflict == nil && free && own != nil && own.State != api.ReplicaCopying {
		if vm.Orphan || !m.connected(vm.Owner) { // one that can be asked is asked
			r.Take = button{Act: act{Verb: verbTake, ID: vm.ID}, Label: t("button.take"), Enabled: ok}
		}
	}
	if b, ok := m.checkButton(vm, r); ok {
		r.More = append(r.More, b)
	}
	if b, ok := m.syncButton(vm, r.Bar != nil); ok && (vm.Second == nil || vm.Second.State != api.SecondPaused) {
		r.More = append(r.More, b)
	}
	if r.Points != "" {
		r.More = append(r.More, button{Act: act{Verb: verbPoints, ID: vm.ID}, Label: t("button.points"), Enabled: m.up})
	}
	r.More = append(r.More, button{Act: act{Verb: verbHistory, ID: vm.ID}, Label: t("button.history"), Enabled: m.up})
	if vm.Conflict != nil || vm.Unopened {
		return
	}
	r.More = append(r.More, button{Act: act{Verb: verbSettings, ID: vm.ID}, Label: t("button.settings"), Enabled: ok && m.connected(vm.Owner)},
		button{Act: act{Verb: verbDisks, ID: vm.ID}, Label: t("button.disks"), Enabled: m.up})
	if vm.Here {
		still := vm.State == api.VMStopped || vm.State == api.VMSuspended
		r.More = append(r.More, button{Act: act{Verb: verbRemoveVM, ID: vm.ID}, Label: t("button.remove-vm"), Enabled: ok && still})
	}
}

// screenButton shows the screen of a VM that is here; nothing where it has none, or there is nothing to show it with.
func (m *index) screenButton(vm *api.VM) button {
	if !m.canShow || vm.Screen == "" {
		return button{}
	}
	return button{Act: act{Verb: verbScreen, ID: vm.ID}, Label: t("button.screen"), Enabled: m.up && !m.showing[vm.ID]}
}

// ownCopy says how old this device's copy is, even while nobody feeds it.
func (m *index) ownCopy(vm *api.VM, own *api.Replica, now time.Time) string {
	switch {
	case m.connected(vm.Owner) || own.State == api.ReplicaCopying:
		return copyOf(own, m.connected(vm.Owner), now).Text
	case own.Heard.IsZero():
		return t("copy.unknown-age")
	case own.Remaining > 0:
		return t("copy.as-of-behind", "Ago", ago(own.Heard, now), "Size", size(own.Remaining))
	}
	return t("copy.as-of", "Ago", ago(own.Heard, now))
}

// where says what a VM does and on which device.
func (m *index) where(vm *api.VM, now time.Time) string {
	switch {
	case vm.Conflict != nil:
		return t("where.conflict")
	case vm.Orphan:
		return t("where.orphan", "Device", vm.OwnerName)
	case vm.Offline && !vm.Here && vm.OfflineSince.IsZero():
		return t("where.journey", "Device", vm.OwnerName)
	case vm.Offline && !vm.Here:
		return t("where.journey-since", "Device", vm.OwnerName, "Ago", ago(vm.OfflineSince, now))
	}
	if vm.Unopened {
		return t("where.unopened")
	}
	if vm.State == api.VMUnknown || (!vm.Here && !m.connected(vm.Owner)) {
		seen := ""
		if d := m.byID[vm.Owner]; d != nil {
			seen = ago(d.LastSeen, now)
		} else {
			seen = ago(time.Time{}, now)
		}
		return t("where.away", "Device", vm.OwnerName, "Ago", seen)
	}
	if vm.Here {
		switch vm.State {
		case api.VMRunning:
			return t("here.running")
		case api.VMStarting:
			return t("here.starting")
		case api.VMStopping:
			return t("here.stopping")
		case api.VMPaused:
			return t("here.paused")
		case api.VMSuspended:
			return t("here.suspended")
		case api.VMSwitching:
			return t("here.switching")
		}
		return t("here.stopped")
	}
	switch vm.State {
	case api.VMRunning:
		return t("there.running", "Device", vm.OwnerName)
	case api.VMStarting:
		return t("there.starting", "Device", vm.OwnerName)
	case api.VMStopping:
		return t("there.stopping", "Device", vm.OwnerName)
	case api.VMPaused:
		return t("there.paused", "Device", vm.OwnerName)
	case api.VMSuspended:
		return t("there.suspended", "Device", vm.OwnerName)
	case api.VMSwitching:
		return t("there.switching", "Device", vm.OwnerName)
	}
	return t("there.stopped", "Device", vm.OwnerName)
}

func vmMood(s api.VMState) mood {
	switch s {
	case api.VMRunning:
		return moodIdle
	case api.VMStarting, api.VMStopping, api.VMSwitching:
		return moodBusy
	case api.VMPaused:
		return moodTrouble
	}
	return moodOff
}

func specText(s api.Spec) string {
	parts := []string{tn("spec.cpus", s.CPUs)}
	if s.MemoryKiB > 0 {
		parts = append(parts, t("spec.memory", "Size", size(s.MemoryKiB<<10)))
	}
	if n, all := disksOfSpec(s); n > 1 {
		parts = append(parts, t("spec.disks", "Count", n, "Size", size(all)))
	} else if s.DiskBytes > 0 {
		parts = append(parts, t("spec.disk", "Size", size(s.DiskBytes)))
	}
	return strings.Join(parts, " · ")
}

// disksOfSpec are how many disks a VM has, and their size altogether, in bytes.
func disksOfSpec(s api.Spec) (n int, all int64) {
	for _, d := range s.Disks() {
		n, all = n+1, all+d.Bytes()
	}
	return n, all
}

// flow is how far something is, and the text below its bar: how much, how fast, how long still.
func flow(done, total, perSecond int64, eta time.Duration) (float64, string) {
	part := -1.0
	var parts []string
	if total > 0 {
		part = min(1, max(0, float64(done)/float64(total)))
		parts = append(parts, t("flow.of", "Percent", percent(done, total), "Done", size(done), "Total", size(total)))
	} else if done > 0 {
		parts = append(parts, size(done))
	}
	if perSecond > 0 {
		parts = append(parts, rate(perSecond))
	}
	if eta > 0 {
		parts = append(parts, t("flow.left", "Span", span(eta)))
	}
	return part, strings.Join(parts, " · ")
}

// switchButton is the button. Its words are always the same, so that it can be found blindly.
func (m *index) switchButton(vm *api.VM, moving bool) button {
	b := button{Act: act{Verb: verbSwitch, ID: vm.ID}, Label: t("button.switch")}
	own := replicaOf(vm, m.st.Device.ID)
	switch {
	case vm.Conflict != nil:
		b.Hint = t("hint.conflict")
	case vm.Unopened:
		b.Hint = t("where.unopened")
	case vm.Here:
		b.Hint = t("hint.here")
	case moving:
		b.Hint = t("hint.moving")
	case !m.up:
		b.Hint = t("hint.no-engine")
	case !m.st.Hypervisor.Found:
		b.Hint = t("hypervisor.none")
	case vm.Orphan:
		b.Hint = t("hint.orphan", "Device", vm.OwnerName)
	case vm.Offline && !m.connected(vm.Owner):
		b.Hint = t("hint.journey", "Device", vm.OwnerName)
	case !m.connected(vm.Owner):
		b.Hint = t("hint.away", "Device", vm.OwnerName)
	case own == nil || own.State == api.ReplicaCopying:
		b.Hint = t("hint.copying")
	default:
		b.Enabled = true
	}
	return b
}

// controls are the other things one can do with a VM that is here.
func (m *index) controls(vm *api.VM, moving bool) (button, []button) {
	if !vm.Here || moving {
		return button{}, nil
	}
	ok := m.up && !m.asked[vm.ID]
	mk := func(v verb, label string) button {
		return button{Act: act{Verb: v, ID: vm.ID}, Label: label, Enabled: ok}
	}
	// Until the person has chosen, nothing is started or put to sleep that might not be the one to go on.
	if vm.Conflict != nil {
		if vm.State == api.VMRunning {
			return button{}, []button{mk(verbStop, t("button.stop")), mk(verbForce, t("button.force"))}
		}
		return button{}, nil
	}
	switch vm.State {
	case api.VMStopped:
		b := mk(verbStart, t("button.start"))
		b.Enabled = ok && m.st.Hypervisor.Found
		return b, nil
	case api.VMSuspended:
		b := mk(verbResume, t("button.resume"))
		b.Enabled = ok && m.st.Hypervisor.Found
		return b, nil
	case api.VMRunning:
		return m.screenButton(vm), []button{mk(verbSuspend, t("button.suspend")), mk(verbStop, t("button.stop")),
			mk(verbReset, t("button.reset")), mk(verbForce, t("button.force"))}
	case api.VMStopping:
		return m.screenButton(vm), []button{mk(verbForce, t("button.force"))}
	case api.VMPaused:
		return mk(verbResume, t("button.resume")), []button{mk(verbForce, t("button.force"))}
	}
	return button{}, nil
}

// devices lists this device first, then the connected ones, then the rest, by name.
func (m *index) devices(now time.Time) []deviceRow {
	var rows []deviceRow
	self := false
	for i := range m.st.Devices {
		d := &m.st.Devices[i]
		self = self || d.Self
		rows = append(rows, m.device(d, now))
	}
	if !self {
		d := m.st.Device
		d.Self = true
		rows = append(rows, m.device(&d, now))
	}
	rank := func(r *deviceRow) int {
		switch {
		case r.Removed:
			return 3
		case r.Self:
			return 0
		case r.Connected:
			return 1
		}
		return 2
	}
	for i := range rows {
		rows[i].CanLeave = rows[i].Self && len(rows) > 1
	}
	sort.SliceStable(rows, func(i, j int) bool {
		a, b := &rows[i], &rows[j]
		if rank(a) != rank(b) {
			return rank(a) < rank(b)
		}
		return a.Name < b.Name
	})
	return rows
}

func (m *index) device(d *api.Device, now time.Time) deviceRow {
	r := deviceRow{ID: d.ID, Name: d.Name, Self: d.Self, Connected: d.Connected || d.Self, Removed: d.Removed}
	switch {
	case d.Removed && d.Wipe:
		r.State = t("device.to-wipe")
	case d.Removed:
		r.State = t("device.removed")
	case d.Self:
		r.State = t("device.self")
	case d.Connected && d.RTTMicros > 0:
		r.State = t("device.connected-rtt", "Span", roundTrip(d.RTTMicros))
	case d.Connected:
		r.State = t("device.connected")
	case d.Offline && d.LastSeen.IsZero():
		r.State = t("device.offline")
	case d.Offline:
		r.State = t("device.offline-since", "Ago", ago(d.LastSeen, now))
	case d.LastSeen.IsZero():
		r.State = t("device.never")
	default:
		r.State = t("device.away", "Ago", ago(d.LastSeen, now))
	}
	switch at := d.Site; {
	case at == nil || d.Removed:
	case at.Name != "":
		r.State = t("device.at-site", "State", r.State, "Site", at.Name)
	case at.Here && !d.Self:
		r.State = t("device.same-network", "State", r.State)
	}
	for i := range m.st.VMs {
		vm := &m.st.VMs[i]
		if vm.Owner == d.ID {
			r.Owns = append(r.Owns, vm.Name)
		}
		if d.Removed {
			continue
		}
		if rep := replicaOf(vm, d.ID); rep != nil {
			// What this device knows of a replica it has from the owner; both must be in reach.
			c := copyOf(rep, r.Connected && m.connected(vm.Owner), now)
			if c.VM = vm.Name; d.Self && rep.State != api.ReplicaOwner {
				c.Text = m.ownCopy(vm, rep, now)
			}
			r.Copies = append(r.Copies, c)
		}
	}
	return r
}

// roundTrip is coarse on purpose: a figure that flickers says nothing.
func roundTrip(us int64) string {
	if us < 1000 {
		return t("rtt.under")
	}
	return t("span.ms", "MS", (us+500)/1000)
}

func replicaOf(vm *api.VM, device string) *api.Replica {
	for i := range vm.Replicas {
		if vm.Replicas[i].Device == device {
			return &vm.Replicas[i]
		}
	}
	return nil
}
