package baton

import "slices"

// A scenario begins with a fleet of three, of which a owns the VM, and says what
// its people do.
type scenario struct {
	name, about string
	cold        bool // the VM is stopped
	behind      bool // the others lack a's last write
	steps       []step
}

func (s scenario) begin() *trial {
	t := &trial{world: newWorld(3, 3, nil), steps: slices.Clone(s.steps)}
	t.healing = true
	a := t.devices[0]
	t.write(a)
	for _, p := range t.devices[1:] {
		t.replicate(a, p)
	}
	if s.behind {
		t.write(a)
	}
	if s.cold {
		a.hyper = hyper{kind: hyperNone}
		t.lost = true
	}
	return t
}

func scenarios() []scenario {
	ask := wants("b", "a")
	newer := []step{{do: offline("a")}, {do: takes("b")}, {do: works("b")}, {do: back("a")}}
	list := []scenario{
		{name: "stopped", about: "b gets the stopped VM from a", cold: true, steps: []step{{do: ask}}},
		{name: "teleport", about: "b gets the running VM from a", steps: []step{{do: ask}}},
		{name: "cancel-taker", about: "b changes its mind while it is loaded", steps: []step{{do: ask}, {in("b", Loaded), says("b", EvCancel)}}},
		{name: "cancel-giver", about: "a changes its mind while it sends", steps: []step{{do: ask}, {in("a", Sending), says("a", EvCancel)}}},
		{name: "refuse", about: "c asks while a gives to b", steps: []step{{do: ask}, {in("a", Offering), wants("c", "a")}}},
		{name: "abort", about: "a cannot send its memory", steps: []step{{do: ask}, {in("a", Sending), breaksDown("a")}}},
		{name: "return", about: "b's hypervisor dies before it may run", steps: []step{{do: ask}, {in("b", Taking), dies("b")}}},
		{name: "takeover", about: "a is gone, b takes over; a comes back with nothing newer", cold: true,
			steps: []step{{do: offline("a")}, {do: takes("b")}, {do: works("b")}, {do: back("a")}}},
		{name: "takeover-newer", about: "a is cut off and writes on, b takes over; a comes back and nobody chooses", behind: true,
			steps: newer},
		{name: "takeover-given", about: "a gave to b, which never answers, and takes it back", steps: []step{
			{do: ask}, {in("a", Giving), offline("b")}, {do: takes("a")}, {do: works("a")}, {do: back("b")}}},
		{name: "takeover-late", about: "b takes over while a's transfer to it is on its way", steps: []step{
			{do: ask}, {in("a", Giving), offline("a")}, {do: takes("b")}, {do: works("b")}, {do: back("a")}}},
		{name: "takeover-sending", about: "c takes over while a sends to b", steps: []step{
			{do: cuts("ac")}, {do: cuts("bc")}, {do: takes("c")}, {do: ask}, {in("a", Sending), back("c")}}},
		{name: "takeover-giving", about: "c takes over while a gives to b", steps: []step{
			{do: cuts("ac")}, {do: cuts("bc")}, {do: takes("c")}, {do: ask}, {in("a", Giving), back("c")}}},
		{name: "takeover-given-third", about: "a gave to b, which is gone, and c takes over", steps: []step{
			{do: ask}, {in("a", Giving), offline("b")}, {do: cuts("ac")}, {do: takes("c")}, {do: works("c")}, {do: back("c")}}},
		{name: "takeover-taking", about: "b takes from a while c takes over", steps: []step{
			{do: cuts("ac")}, {do: cuts("bc")}, {do: takes("c")}, {do: ask}, {in("b", Taking), back("c")}}},
		{name: "takeover-twice", about: "b and c take over apart", behind: true, steps: []step{
			{do: offline("a")}, {do: cuts("bc")}, {do: takes("b")}, {do: works("b")}, {do: takes("c")}, {do: works("c")}, {do: back("c")}, {do: back("a")}}},
		{name: "choice-twice", about: "a and b choose apart, each the other's side", behind: true, steps: slices.Concat(newer, []step{
			{do: cuts("ab")}, {do: cuts("ac")}, {do: keeps("a", "b")}, {do: keeps("b", "a")}, {do: back("a")}})},
	}
	for _, at := range []string{"a", "b"} {
		for _, side := range []string{"a", "b"} {
			list = append(list, scenario{name: "keep-" + side + "-at-" + at, behind: true,
				about: "as takeover-newer, and " + at + "'s person keeps " + side + "'s side",
				steps: slices.Concat(newer, []step{{do: keeps(at, side)}})})
		}
	}
	return list
}

func in(id string, s State) func(*world) bool {
	return func(w *world) bool { d := w.dev(id); return d.m != nil && d.m.State() == s }
}

// up is the device, once its person has switched it on.
func (w *world) up(id string) *device {
	d := w.dev(id)
	if d.m == nil {
		w.restart(d)
	}
	for len(d.queue) > 0 {
		w.act(d)
	}
	return d
}

func wants(id, from string) func(*world) {
	return func(w *world) { w.step(w.up(id), Event{Kind: EvWant, Peer: from, Ask: w.name()}) }
}

func says(id string, kind EventKind) func(*world) {
	return func(w *world) { w.step(w.up(id), Event{Kind: kind}) }
}

func breaksDown(id string) func(*world) {
	return func(w *world) {
		d := w.up(id)
		d.tasks = nil
		d.local = append(d.local, Event{Kind: EvLocalFailed, Attempt: d.m.Attempt()})
	}
}

func dies(id string) func(*world) {
	return func(w *world) {
		d := w.dev(id)
		d.hyper = hyper{kind: hyperNone} // only a copy: a holds the guest
		d.local = append([]Event{{Kind: EvHypervisorDied}}, d.local...)
	}
}

func cuts(key string) func(*world) { return func(w *world) { w.link(key, true) } }

// offline cuts all of a device's links: what it sent is lost.
func offline(id string) func(*world) { return func(w *world) { w.links(id, true) } }

func back(id string) func(*world) { return func(w *world) { w.links(id, false) } }

func (w *world) links(id string, cut bool) {
	for _, p := range w.devices {
		if p.id != id {
			w.link(pair(id, p.id), cut)
		}
	}
}

func (w *world) link(key string, cut bool) {
	if w.cut[key] == cut {
		return
	}
	w.cut[key] = cut
	w.net = slices.DeleteFunc(w.net, func(l letter) bool { return cut && pair(l.from, l.to) == key })
	kind := EvLinkUp
	if cut {
		kind = EvLinkLost
	}
	a, b := w.dev(key[:1]), w.dev(key[1:])
	if a.m != nil && b.m != nil && !cut {
		w.meet(a, b)
	}
	for _, e := range [][2]*device{{a, b}, {b, a}} {
		if e[0].m != nil {
			e[0].local = append(e[0].local, Event{Kind: kind, Peer: e[1].id})
		}
	}
}

func takes(id string) func(*world) {
	return func(w *world) {
		w.force = true
		w.takeOver(w.up(id))
	}
}

// works boots the VM where it is owned, and writes.
func works(id string) func(*world) {
	return func(w *world) {
		d := w.up(id)
		lost := w.lost
		if d.m.State() == Owned && d.active && d.hyper.kind == hyperNone {
			w.power(d)
		}
		w.lost = w.lost || lost
		w.write(d)
	}
}

// keeps is the choice of id's person for the side of another device.
func keeps(id, side string) func(*world) {
	return func(w *world) {
		d := w.up(id)
		i := slices.IndexFunc(d.heads, func(t *transfer) bool { return t.to == side })
		if i >= 0 && len(d.heads) > 1 && w.holds(d.heads[i]) {
			w.keep(d, i)
		}
	}
}
