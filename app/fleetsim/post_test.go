package fleetsim

import (
	"slices"
	"time"

	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/p2p/site"
)

// The push scheduler, as package app asks it: each device works out the sites and their postmasters (p2p/site), and its own scheduler (app/postal) says
// what it pushes, and when. Both are real; their records don't take the way through the directory here.

// Sooner than usual, so that a life has some of each.
var postTimes = postal.Times{Rest: 2 * time.Second, Gap: 5 * time.Second, Overdue: 20 * time.Second}

// postOffice is what an engine has for this.
type postOffice struct {
	node    *site.Node
	view    site.View
	known   map[string]site.Record // what the others have said
	machine *postal.Machine
}

func newPostOffice(d *device) *postOffice {
	return &postOffice{node: site.New(d.id, d.says), known: map[string]site.Record{}, machine: postal.New(postTimes)}
}

// clock is what engines measure time with.
func (w *world) clock() time.Duration { return time.Since(w.began) }

// second lets all look where they are, and at their post.
func (w *world) second() {
	for _, d := range w.devices {
		if d.e != nil {
			d.e.lookAround()
		}
	}
	for _, d := range w.devices {
		if d.e != nil && !d.burnt() {
			w.tickPost(d)
		}
	}
}

// lookAround works out the sites.
func (e *engine) lookAround() {
	d, o := e.d, e.post
	in := site.Input{Now: d.w.clock(), Facts: d.facts, Records: map[string]site.Record{d.id: d.says}}
	for _, p := range d.w.others(d) {
		peer := site.Peer{ID: p.id, Connected: d.sees[p.id]}
		if peer.Connected {
			peer.OnLink, peer.Trip = !d.w.far(d, p), time.Millisecond
			if !peer.OnLink {
				peer.Trip = 30 * time.Millisecond
			}
			o.known[p.id] = p.says
		}
		in.Peers, in.Records[p.id] = append(in.Peers, peer), o.known[p.id]
	}
	acting := o.view.Acting
	o.view, d.says = o.node.Tick(in)
	if o.view.Acting != acting {
		d.w.note("%s acts as postmaster: %v, of %v", d.id, o.view.Acting, o.view.Here.Members)
	}
}

// tickPost does what the scheduler says; false if it begins nothing.
func (w *world) tickPost(d *device) (began bool) {
	e := d.e
	in := e.postInput()
	orders, served := e.post.machine.Tick(in)
	if len(served) > 0 {
		d.asked = false
	}
	for _, o := range orders {
		f, p := e.pushes[o.Device], w.dev(o.Device)
		under := f != nil && f.src != nil
		switch {
		case under && o.Stop:
			w.note("%s puts the push to %s off", d.id, p.id)
			f.result = postal.Result{Busy: true}
			f.closeOwner()
		case under:
		case o.Stop:
			e.post.machine.Ended(vmID, p.id, in.Now, postal.Result{Busy: true})
		default:
			f, result := w.beginPush(d, p)
			if f == nil {
				e.post.machine.Ended(vmID, p.id, w.clock(), result)
				continue
			}
			f.onward, began = o.Onward, true
		}
	}
	return began
}

// postInput is what is known now.
func (e *engine) postInput() postal.Input {
	d, o := e.d, e.post
	w := d.w
	in := postal.Input{Now: w.clock(), Self: d.id, Acting: o.view.Acting}
	_, owner, _ := e.dir.Owner(vmID)
	v := postal.VM{ID: vmID, Owner: owner, Mirrored: d.mirrored || e.owner(), May: !d.paused, Asked: d.asked, Fed: map[string]bool{}, Told: map[string]postal.Position{}, None: map[string]bool{}}
	for _, p := range w.others(d) {
		at := o.view.At(p.id)
		here := at.ID == o.view.Here.ID && at.ID != ""
		in.Devices = append(in.Devices, postal.Device{ID: p.id, Site: at.ID, Here: here, Post: at.Postmaster == p.id, Connected: d.sees[p.id]})
		v.Mirrored = v.Mirrored || here && p.id == owner
		v.Fed[p.id] = e.owner() && !w.far(d, p)
	}
	if e.disk == nil {
		return in
	}
	if info := e.disk.Info(); info.Complete && info.Stale == 0 && e.owner() == info.Active {
		v.At = postal.Position(info.Position)
		if e.owner() && info.Unflushed {
			v.At.Barrier++
		}
		if e.owner() && w.saboteur.unnamed(e) {
			v.At = postal.Position{Term: info.Term, Barrier: info.Position.Barrier + 1}
		}
	}
	for id, r := range e.dir.Replicas(vmID) {
		if r.Complete {
			v.Told[id] = postal.Position(r.Position)
		}
		v.None[id] = !r.Complete
	}
	in.VMs = []postal.VM{v}
	return in
}

// pushEnded tells the scheduler how a push ended.
func (f *mirror) pushEnded() {
	if e := f.owner.e; e != nil && e.pushes[f.replica.id] == f {
		delete(e.pushes, f.replica.id)
		e.post.machine.Ended(vmID, f.replica.id, f.w.clock(), f.result)
	}
}

// crossing is a block that is sent into another site.
type crossing struct {
	to    int
	block int64
}

// site is a device's.
func (w *world) site(d *device) int { return int(d.id[0]-'a') % max(w.sites, 1) }

// crosses counts a block that is sent to p.
func (w *world) crosses(d, p *device, block int64) {
	if w.far(d, p) {
		w.crossed[crossing{w.site(p), block}]++
	}
}

// apart says how many replicas aren't what d's disk is.
func (w *world) apart(d *device) (n int) {
	for _, p := range w.others(d) {
		if p.e == nil {
			continue
		}
		if p.e.disk == nil || !p.e.disk.ReplicaState().Complete || p.e.disk.Position() != d.e.disk.Position() {
			n++
		}
	}
	return n
}

// firstCopies waits until all have a replica: a push to a device that has none begins when somebody acts as postmaster and knows it.
func (w *world) firstCopies() {
	for range 600 { // one that was refused often is asked again after a while only
		if !slices.ContainsFunc(w.devices, func(d *device) bool { return d.e.disk == nil || !d.e.disk.ReplicaState().Complete }) {
			return
		}
		w.some(w.tellReplicas)
		w.pass(time.Second)
		w.settle()
	}
}

// everywhere waits until all that run have what d's disk is.
func (w *world) everywhere(d *device) {
	for range 600 {
		w.settle()
		if w.err != nil || w.apart(d) == 0 {
			return
		}
		w.pass(time.Second)
	}
}

// alike waits until every replica holds what d's disk does, though nothing is written.
func (w *world) alike(d *device) {
	for range 600 {
		other := slices.IndexFunc(w.others(d), func(p *device) bool {
			c, err := read(p.e.disk)
			return err != nil || *c != d.now
		})
		if other < 0 || w.err != nil {
			return
		}
		w.some(w.tellReplicas)
		w.pass(time.Second)
		w.settle()
	}
	w.fail("at rest some don't get what %s has, as long as it writes nothing: %s", d.id, w.gist())
}
