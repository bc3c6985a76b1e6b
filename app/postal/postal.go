package postal

import (
	"cmp"
	"slices"
	"time"

	"tagalong.org/tagalong/p2p/replica"
)

// Position is how far a replica has come.
type Position = replica.Position

// Times are the scheduler's.
type Times struct {
	// Rest is how long nothing must have been written for the guest or its person to count as idle.
	Rest time.Duration
	// Gap is how long after a push to a site the next one begins at the earliest, unless it is overdue.
	Gap time.Duration
	// Overdue is how long a device of another site may be behind.
	Overdue time.Duration
}

// Usual are the times if nothing else is wished.
var Usual = Times{Rest: 30 * time.Second, Gap: 2 * time.Minute, Overdue: 15 * time.Minute}

const (
	retryMin = 5 * time.Second
	retryMax = 5 * time.Minute
	busyMax  = time.Minute
	// believed is for how long a push's word about where a device is counts more than the owner's: who loses its copy says so to the owner only, which
	// may be long in telling.
	believed = time.Hour
	// onwardAtOnce is how many devices of the own site get a VM's cut at a time.
	onwardAtOnce = 3
)

// Device is another device of the fleet.
type Device struct {
	ID string
	// Site is the same for devices that are together now. Here says that it is this device's.
	Site string
	Here bool
	// Post says that it is its site's postmaster.
	Post      bool
	Connected bool
}

// VM is what this device knows of a VM.
type VM struct {
	ID    string
	Owner string // device ID
	// At is where this device's copy is; zero if it has none that is whole.
	At Position
	// Mirrored says that what this device has came by the owner's mirror, or is the owner's.
	Mirrored bool
	// May says that it may be pushed to other sites now.
	May bool
	// Asked says that the person wants it pushed now.
	Asked bool
	// Fed are the devices that get it by this device's mirror.
	Fed map[string]bool
	// Told is where the others' whole copies are, as far as the owner has told; None are those that, as it told, have none that is whole.
	Told map[string]Position
	None map[string]bool
}

// Input is what is known at a tick. Now never goes back.
type Input struct {
	Now     time.Duration
	Self    string
	Acting  bool // this device is to do its site's postmaster's work
	Devices []Device
	VMs     []VM
}

// Order is a push to be begun, or to be ended.
type Order struct {
	VM, Device string
	Stop       bool
	// Onward says that the device is of this site: no limits hold.
	Onward bool
}

// Result is how a push ended.
type Result struct {
	// Reached is where the device is, if it is known: the push was done, or it needed none.
	Reached Position
	// Failed says that it is to be tried again later; Busy that nothing is wrong, but the device didn't take it now.
	Failed, Busy bool
}

// way is what is remembered of one VM and one other device.
type way struct {
	running, onward bool
	began           time.Duration // the last push
	behind          bool
	since           time.Duration // behind since then
	tries           int           // failures since the last that went well
	refused         int           // times in a row that it was busy
	before          time.Duration // nothing begins earlier
	connected       bool
	none            bool     // it has no whole copy, as the owner told
	reached         Position // by a push from here
	reachedAt       time.Duration
	// newer is what its site's postmaster has had since then, and it hasn't; zero if there is no such thing.
	newer   Position
	newerAt time.Duration
}

// Machine is one device's scheduler. It is not safe for concurrent use.
type Machine struct {
	times Times
	vms   map[string]*errand
	ended map[[2]string]time.Duration // by VM and device: when the last push there ended well
}

// errand is what is remembered of one VM.
type errand struct {
	at    Position
	moved time.Duration // when at changed
	ways  map[string]*way
}

// New makes a scheduler.
func New(t Times) *Machine {
	return &Machine{times: t, vms: map[string]*errand{}, ended: map[[2]string]time.Duration{}}
}

// Tick takes in what is known, and returns what is to be done. served are the VMs that the person asked for of which nobody who can be reached
// lacks anything that can be pushed now.
func (m *Machine) Tick(in Input) (orders []Order, served []string) {
	known := map[string]bool{}
	for i := range in.VMs {
		v := &in.VMs[i]
		known[v.ID] = true
		orders = append(orders, m.observe(in, v)...)
	}
	for id, e := range m.vms {
		if known[id] {
			continue
		}
		for device, w := range e.ways {
			if w.running {
				orders = append(orders, Order{VM: id, Device: device, Stop: true})
			}
		}
		delete(m.vms, id)
	}
	slices.SortFunc(orders, func(a, b Order) int { return cmp.Or(cmp.Compare(a.VM, b.VM), cmp.Compare(a.Device, b.Device)) })
	vms := slices.Clone(in.VMs)
	slices.SortStableFunc(vms, func(a, b VM) int {
		return cmp.Or(cmp.Compare(m.waited(a.ID), m.waited(b.ID)), cmp.Compare(a.ID, b.ID))
	})
	for i := range vms {
		orders = append(orders, m.onward(in, &vms[i])...)
		orders = append(orders, m.away(in, &vms[i])...)
	}
	for _, v := range in.VMs {
		if v.Asked && m.served(in, &v) {
			served = append(served, v.ID)
		}
	}
	return orders, served
}

// waited is since when some device has been behind, of those that nothing is sent to.
func (m *Machine) waited(vm string) time.Duration {
	least := time.Duration(1<<63 - 1)
	for _, w := range m.vms[vm].ways {
		if w.behind && !w.running {
			least = min(least, w.since)
		}
	}
	return least
}

// observe notes what is new of a VM, and ends what mustn't go on.
func (m *Machine) observe(in Input, v *VM) (orders []Order) {
	e := m.vms[v.ID]
	if e == nil {
		e = &errand{at: v.At, moved: in.Now, ways: map[string]*way{}}
		m.vms[v.ID] = e
	}
	if e.at != v.At {
		e.at, e.moved = v.At, in.Now
	}
	there := map[string]bool{}
	for _, d := range in.Devices {
		there[d.ID] = true
		w := e.ways[d.ID]
		if w == nil {
			w = &way{}
			e.ways[d.ID] = w
		}
		if d.Connected && !w.connected {
			w.before = min(w.before, in.Now)
		}
		w.connected = d.Connected
		if v.None[d.ID] && !w.none {
			w.reached = Position{} // it had one, and lost it
		}
		w.none = v.None[d.ID]
		behind := d.ID != v.Owner && !v.Fed[d.ID] && v.At != Position{} && w.at(in.Now, v.Told[d.ID]).Compare(v.At) < 0
		if behind && !w.behind {
			w.since = in.Now
		}
		w.behind = behind
		if !w.running {
			continue
		}
		if v.At == (Position{}) || d.ID == v.Owner || v.Fed[d.ID] || !w.onward && !v.May {
			orders = append(orders, Order{VM: v.ID, Device: d.ID, Stop: true})
		}
	}
	for id, w := range e.ways {
		if !there[id] {
			if w.running {
				orders = append(orders, Order{VM: v.ID, Device: id, Stop: true})
			}
			delete(e.ways, id)
			delete(m.ended, [2]string{v.ID, id})
		}
	}
	e.follow(in, v)
	return orders
}

// follow notes of each device of another site what its postmaster has that it hasn't, and since when: it follows if it comes up with that, though the
// postmaster may have more by then.
func (e *errand) follow(in Input, v *VM) {
	posts := map[string]string{}
	for _, d := range in.Devices {
		if d.Post {
			posts[d.Site] = d.ID
		}
	}
	for _, d := range in.Devices {
		w, has := e.ways[d.ID], Position{}
		if post := posts[d.Site]; post != "" && !d.Here {
			has = e.ways[post].at(in.Now, v.Told[post])
		}
		at := w.at(in.Now, v.Told[d.ID])
		switch {
		case at.Compare(has) >= 0:
			w.newer = Position{}
		case at.Compare(w.newer) >= 0:
			w.newer, w.newerAt = has, in.Now
		}
	}
}

// at is where the device is, as far as is known.
func (w *way) at(now time.Duration, told Position) Position {
	if now-w.reachedAt < believed && told.Compare(w.reached) < 0 {
		return w.reached
	}
	return told
}

// ready says that a push can begin.
func (w *way) ready(now time.Duration) bool {
	return w.behind && w.connected && !w.running && now >= w.before
}

// onward begins pushes to the devices of this site.
func (m *Machine) onward(in Input, v *VM) (orders []Order) {
	if !in.Acting || v.At == (Position{}) || v.Owner == in.Self {
		return nil
	}
	e := m.vms[v.ID]
	mirrored, running := false, 0
	for _, d := range in.Devices {
		mirrored = mirrored || d.ID == v.Owner && d.Here
		if w := e.ways[d.ID]; w.running && w.onward {
			running++
		}
	}
	for _, d := range sorted(in.Devices) {
		w := e.ways[d.ID]
		// Where the owner is its mirror does that, unless it fails to.
		if !d.Here || !w.ready(in.Now) || mirrored && in.Now-w.since < m.times.Overdue || running >= onwardAtOnce {
			continue
		}
		running++
		orders = append(orders, m.begin(in, v, d, true))
	}
	return orders
}

// away begins pushes to other sites: at most one for each.
func (m *Machine) away(in Input, v *VM) (orders []Order) {
	if !v.May || v.At == (Position{}) {
		return nil
	}
	e := m.vms[v.ID]
	sites := map[string][]Device{}
	for _, d := range sorted(in.Devices) {
		if !d.Here {
			sites[d.Site] = append(sites[d.Site], d)
		}
	}
	for _, d := range sorted(in.Devices) {
		site := sites[d.Site]
		if d.Here || site[0].ID != d.ID || m.busy(site) {
			continue
		}
		if to, ok := m.choose(in, v, e, site); ok && m.due(in, v, e, site, to) {
			orders = append(orders, m.begin(in, v, to, false))
		}
	}
	return orders
}

// busy says that something is under way to one of the devices.
func (m *Machine) busy(site []Device) bool {
	for _, e := range m.vms {
		for _, d := range site {
			if w := e.ways[d.ID]; w != nil && w.running {
				return true
			}
		}
	}
	return false
}

// choose returns to which device of another site the VM is to be pushed, if to any.
func (m *Machine) choose(in Input, v *VM, e *errand, site []Device) (to Device, ok bool) {
	late := func(d Device) time.Duration { return in.Now - e.ways[d.ID].since }
	// Who isn't where changes come from waits for who is. What the person wishes here is done from here.
	mine := v.Mirrored && (in.Acting || v.Asked)
	may := func(d Device) bool {
		return mine || (in.Acting || v.Owner == in.Self) && late(d) >= 2*m.times.Overdue
	}
	i := slices.IndexFunc(site, func(d Device) bool { return d.Post && e.ways[d.ID].connected && d.ID != v.Owner })
	around := i < 0
	left := late
	if i >= 0 {
		post := site[i]
		if w := e.ways[post.ID]; w.behind {
			if w.ready(in.Now) && may(post) {
				return post, true
			}
			around = w.tries > 0 && late(post) >= m.times.Overdue
		} else {
			// What took long to get there is pushed on from there only now: it isn't to go there twice.
			left = func(d Device) time.Duration { return in.Now - e.ways[d.ID].newerAt }
		}
	}
	for _, d := range site {
		// One that stays behind though the postmaster has everything may be elsewhere.
		if e.ways[d.ID].ready(in.Now) && may(d) && (around || left(d) >= 2*m.times.Overdue) {
			return d, true
		}
	}
	return to, false
}

// due says whether it is time to push.
func (m *Machine) due(in Input, v *VM, e *errand, site []Device, to Device) bool {
	w := e.ways[to.ID]
	if v.Asked || in.Now-w.since >= m.times.Overdue || w.at(in.Now, v.Told[to.ID]) == (Position{}) || w.tries > 0 {
		return true
	}
	for _, d := range site {
		if last, ok := m.ended[[2]string{v.ID, d.ID}]; ok && in.Now-last < m.times.Gap {
			return false
		}
	}
	return in.Now-e.moved >= m.times.Rest
}

// served says that the person's wish is fulfilled as far as it can be.
func (m *Machine) served(in Input, v *VM) bool {
	e := m.vms[v.ID]
	for _, d := range in.Devices {
		if w := e.ways[d.ID]; w.running || !d.Here && w.ready(in.Now) {
			return false
		}
	}
	return true
}

func (m *Machine) begin(in Input, v *VM, d Device, onward bool) Order {
	w := m.vms[v.ID].ways[d.ID]
	w.running, w.onward, w.began = true, onward, in.Now
	return Order{VM: v.ID, Device: d.ID, Onward: onward}
}

// Ended tells that a push has ended, ordered or not.
func (m *Machine) Ended(vm, device string, now time.Duration, r Result) {
	e := m.vms[vm]
	if e == nil || e.ways[device] == nil {
		return
	}
	w := e.ways[device]
	w.running = false
	if r.Reached != (Position{}) {
		w.reached, w.reachedAt = r.Reached, now
		w.since = max(w.since, w.began) // what it lacks now is newer
	}
	switch {
	case r.Busy:
		w.before = now + min(retryMin<<min(w.refused, 10), busyMax)
		w.refused++
	case r.Failed:
		w.before = now + min(retryMin<<min(w.tries, 10), retryMax)
		w.tries++
	default:
		w.tries, w.refused, w.before = 0, 0, now
		m.ended[[2]string{vm, device}] = now
	}
}

// Failing says how often in a row pushes of a VM to a device have failed, and when the next one may begin.
func (m *Machine) Failing(vm, device string) (tries int, next time.Duration) {
	if e := m.vms[vm]; e != nil && e.ways[device] != nil {
		return e.ways[device].tries, e.ways[device].before
	}
	return 0, 0
}

func sorted(devices []Device) []Device {
	out := slices.Clone(devices)
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
