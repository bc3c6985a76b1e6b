package fleetsim

import (
	"slices"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
)

// letter is one message between two engines. Each is delivered at any time, in any order, twice, or never.
type letter struct {
	from, to string
	// One of:
	action   *baton.Action
	digest   map[string]uint64
	want     []string
	records  []directory.Record
	transfer *directory.SignedTransfer // with the action
	sets     []byte                    // with the transfer: what the giver knew of the others
}

// network is what is between the devices.
type network struct {
	letters []letter
	cut     map[[2]string]bool // directed
}

// reaches says whether bytes pass from one device to the other now.
func (n *network) reaches(from, to string) bool { return !n.cut[[2]string{from, to}] }

// linked says whether a connection between two devices lives.
func (n *network) linked(a, b string) bool { return n.reaches(a, b) && n.reaches(b, a) }

// post sends a letter, if the sender believes in the connection.
func (w *world) post(l letter) {
	d := w.dev(l.from)
	if !d.sees[l.to] || w.chance(15) || len(w.net.letters) > 400 {
		return
	}
	w.net.letters = append(w.net.letters, l)
}

// deliver hands over any of the letters to d; false if there are none.
func (w *world) deliver(d *device) bool {
	var mine []int
	for i, l := range w.net.letters {
		if l.to == d.id {
			mine = append(mine, i)
		}
	}
	if len(mine) == 0 {
		return false
	}
	i := mine[w.rng.IntN(len(mine))]
	if w.healing {
		i = mine[0]
	}
	l := w.net.letters[i]
	if !w.net.reaches(l.from, l.to) {
		if w.rng.IntN(2) == 0 { // else it waits: it may pass when the cable is back
			w.net.letters = slices.Delete(w.net.letters, i, i+1)
		}
		return true
	}
	if !w.chance(12) { // else it will come once more
		w.net.letters = slices.Delete(w.net.letters, i, i+1)
	}
	if d.e == nil {
		return true
	}
	switch {
	case l.action != nil:
		d.e.hear(l)
	case l.digest != nil:
		d.e.hearDigest(l.from, l.digest)
	case l.want != nil:
		if found := d.e.dir.Get(l.want); len(found) > 0 {
			w.post(letter{from: d.id, to: l.from, records: found})
		}
	default:
		d.e.hearRecords(l.from, l.records)
	}
	return true
}

// exchange tells what this device's directory holds.
func (e *engine) exchange(to string) {
	e.d.w.post(letter{from: e.d.id, to: to, digest: e.dir.Digest()})
}

// hearDigest sends what the other lacks and asks for what this device lacks.
func (e *engine) hearDigest(from string, theirs map[string]uint64) {
	ours := e.dir.Digest()
	var send, want []string
	for k, v := range ours {
		if theirs[k] < v {
			send = append(send, k)
		}
	}
	for k, v := range theirs {
		if ours[k] < v {
			want = append(want, k)
		}
	}
	slices.Sort(send)
	slices.Sort(want)
	if len(send) > 0 {
		e.d.w.post(letter{from: e.d.id, to: from, records: e.dir.Get(send)})
	}
	if len(want) > 0 {
		e.d.w.post(letter{from: e.d.id, to: from, want: want})
	}
}

// hearRecords applies what came, in the order of keys: what can't be applied yet comes again with a later digest.
func (e *engine) hearRecords(from string, list []directory.Record) {
	w := e.d.w
	for _, r := range list {
		if err := e.dir.Apply(from, r); err != nil {
			w.note("%s doesn't take %s from %s: %v", e.d.id, r.Key, from, err)
			if !e.d.burnt() && !passing(err) {
				w.fail("%s refuses a record of %s: %v", e.d.id, from, err)
			}
		}
	}
}

// flip cuts or mends a direction between two devices, or both.
func (w *world) flip(a, b *device) {
	there, back := [2]string{a.id, b.id}, [2]string{b.id, a.id}
	down := w.net.cut[there] || w.net.cut[back]
	if down {
		delete(w.net.cut, there)
		delete(w.net.cut, back)
		w.note("the network mends %s–%s", a.id, b.id)
		return
	}
	w.net.cut[there] = true
	if w.rng.IntN(3) > 0 {
		w.net.cut[back] = true
	}
	w.note("the network cuts %s→%s, back=%v", a.id, b.id, w.net.cut[back])
}

// notice lets d notice what became of its connection to p.
func (w *world) notice(d, p *device) {
	up := w.net.linked(d.id, p.id) && p.e != nil
	if d.sees[p.id] == up {
		return
	}
	d.sees[p.id] = up
	if d.e == nil {
		return
	}
	w.note("%s notices %s: %v", d.id, p.id, up)
	kind := baton.EvLinkLost
	if up {
		kind = baton.EvLinkUp
		d.e.exchange(p.id)
	}
	d.e.events = append(d.e.events, baton.Event{Kind: kind, Peer: p.id})
}
