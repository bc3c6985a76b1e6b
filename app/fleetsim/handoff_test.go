package fleetsim

import (
	"encoding/json"
	"errors"
	"slices"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// seal closes the replica for the owner's writes.
func (e *engine) seal() {
	e.sealed = true
	if e.applying != nil {
		e.applying.closeReplica()
	}
}

// work does the next step of a hand-off's work; false if there is none to do now.
func (e *engine) work() bool {
	if e.incoming != nil && e.incoming.goOn(e.d.w) {
		return true
	}
	if e.aside != nil {
		e.setAside()
		return true
	}
	if a := e.stays; a != nil && !e.d.full {
		if e.stays = nil; e.machine.State() == baton.Owned && e.machine.Term() == a.Term {
			e.resume(*a)
		}
		return true
	}
	if e.due {
		e.due = false
		if vm, ok := e.dir.VM(vmID); ok && e.owner() && (vm.Written < e.machine.Term() || !slices.Equal(vm.Heeds, e.dir.Heeds(vmID))) {
			e.d.w.putRecord(e.d)
			return true
		}
	}
	if e.hydrates() && !e.d.w.behind {
		if !e.d.w.healing && e.d.w.rng.IntN(8) == 0 && e.d.w.rollBack(e.d) || e.hydrate() {
			return true
		}
	}
	return e.outgoing != nil && e.outgoing.goOn(e.d.w)
}

// send posts an action that is a message.
func (e *engine) send(a baton.Action) {
	l := letter{from: e.d.id, to: a.Peer, action: &a}
	switch a.Kind {
	case baton.ActSendTransfer, baton.ActSendReturned:
		t, ok := e.dir.Transfer(vmID, a.Term)
		if !ok {
			e.d.w.fail("%s has no transfer %d to send", e.d.id, a.Term)
			return
		}
		l.transfer = &t
		if a.Kind == baton.ActSendTransfer && e.disk != nil {
			l.sets, _ = e.disk.ExportDirty() // without it everything is copied
		}
	}
	e.d.w.post(l)
}

// hear turns a letter into an event.
func (e *engine) hear(l letter) {
	d, w := e.d, e.d.w
	ev, _ := baton.Delivered(l.from, *l.action)
	switch ev.Kind {
	case baton.EvPeerAsk:
		if !e.owner() || e.disk != nil && e.disk.Info().Hydrating || len(e.dir.Heads(vmID)) > 1 || d.guest != nil && d.guest.kind != running && e.machine.State() == baton.Owned {
			w.post(letter{from: d.id, to: l.from, action: &baton.Action{Kind: baton.ActSendRefuse, Peer: l.from, Ask: ev.Ask, Reason: "not ready"}})
			return
		}
		ev.Live = d.guest != nil
		ev.Attempt = w.name()
	case baton.EvPeerTransfer, baton.EvPeerReturned:
		t, err := e.verified(l)
		if err != nil {
			w.note("%s refuses a transfer of %s: %v", d.id, l.from, err)
			if !d.burnt() && !passing(err) {
				w.fail("%s refuses a transfer of %s: %v", d.id, l.from, err)
			}
			return
		}
		if ev.Kind == baton.EvPeerTransfer {
			e.word = &custody.Word{From: l.from, Position: vmdisk.Position(t.Position), Sets: l.sets}
		}
		ev.Attempt, ev.Term, ev.Position = t.Attempt, t.Term, baton.Position(t.Position)
	}
	e.events = append(e.events, ev)
}

var (
	errForeign    = errors.New("a transfer between other devices")
	errPassedOver = errors.New("the history went another way")
)

// verified makes a transfer part of the directory, from its encoded form.
func (e *engine) verified(l letter) (directory.Transfer, error) {
	var t directory.SignedTransfer
	b, err := json.Marshal(l.transfer)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return t.Transfer, err
	}
	if t.From != l.from || t.To != e.d.id {
		return t.Transfer, errForeign
	}
	if err := e.dir.AppendTransfer(t); err != nil {
		return t.Transfer, err
	}
	if term, _, _ := e.dir.Owner(vmID); term > t.Term {
		return t.Transfer, errPassedOver
	}
	return t.Transfer, nil
}

// passing says that an error of the directory may be gone later, with no harm done.
func passing(err error) bool {
	for _, e := range []error{directory.ErrGap, directory.ErrUnsure, directory.ErrUnknownDevice, errFlaky, errPassedOver, directory.ErrNoSpace} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
