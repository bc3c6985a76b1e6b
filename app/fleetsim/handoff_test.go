package fleetsim

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing/synctest"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
)

// outgoing is the work behind giving the VM away.
type outgoing struct {
	attempt, peer string
	live          bool
	stage         stage
	lacking       bool // the taker's copy isn't waited for
	proceed       bool // the machine said that the last of the memory may leave
	cancel        context.CancelFunc
	drained       chan drained
}

type drained struct {
	pos vmdisk.Position
	err error
}

type stage string

const (
	stageCatchUp stage = ""
	stageStop    stage = "stop"
	stageFence   stage = "fence"
	stageDrain   stage = "drain"
	stageDrained stage = "drained"
	stageLoad    stage = "load"
	stageDone    stage = "done"
)

// incomingRun is the work behind taking it.
type incomingRun struct {
	attempt, peer string
	started       bool
}

func (e *engine) endOutgoing() {
	o := e.outgoing
	if o == nil {
		return
	}
	e.outgoing = nil
	if o.cancel != nil {
		o.cancel()
		if o.stage == stageDrained {
			<-o.drained
		}
	}
}

func (e *engine) endIncoming() {
	if e.incoming == nil {
		return
	}
	e.incoming = nil
	if g := e.d.guest; g != nil && (g.kind == incoming || g.kind == loaded) {
		e.d.guest = nil
	}
	e.sealed = false
}

// seal closes the replica for the owner's writes.
func (e *engine) seal() {
	e.sealed = true
	if e.applying != nil {
		e.applying.closeReplica()
	}
}

// work does the next step of a hand-off's work; false if there is none to do now.
func (e *engine) work() bool {
	if e.incoming != nil && !e.incoming.started {
		return e.workIncoming()
	}
	if e.aside != nil {
		e.setAside()
		return true
	}
	if e.due {
		e.due = false
		if vm, ok := e.dir.VM(vmID); ok && e.owner() && (vm.Written < e.machine.Term() || !slices.Equal(vm.Heeds, e.dir.Heeds(vmID))) {
			e.d.w.putRecord(e.d)
			return true
		}
	}
	if e.hydrates() {
		if !e.d.w.healing && e.d.w.rng.IntN(8) == 0 && e.d.w.rollBack(e.d) || e.hydrate() {
			return true
		}
	}
	o, d, w := e.outgoing, e.d, e.d.w
	if o == nil || o.stage == stageDone {
		return false
	}
	failed := func(reason string) {
		w.note("%s can't give the VM away: %s", d.id, reason)
		o.stage = stageDone
		e.events = append(e.events, baton.Event{Kind: baton.EvLocalFailed, Attempt: o.attempt, Reason: reason})
	}
	if w.chance(60) {
		failed("bad luck")
		return true
	}
	switch o.stage {
	case stageCatchUp:
		f := e.feeds[o.peer]
		if f == nil || f.feed == nil || f.feed.Progress().Phase != vmdisk.Live {
			if o.lacking = e.goesOnLacking(o.peer); !o.lacking {
				return false
			}
		} else if w.rng.IntN(6) == 0 {
			o.lacking = true // its last writes don't come in time
		}
		e.events = append(e.events, baton.Event{Kind: baton.EvProgress})
		o.stage = stageFence
		if o.live {
			o.stage = stageStop
		}
		if w.saboteur == doesntStop {
			o.stage = stageDrain
		}
	case stageStop:
		if d.guest == nil || d.guest.kind != running || d.guest.flight != nil {
			failed("the guest doesn't run")
			return true
		}
		_ = e.gate.Stop(func() error {
			d.guest.kind = standing
			return nil
		})
		o.stage = stageFence
	case stageFence:
		w.note("%s fences its disk", d.id)
		if err := e.disk.Fence(); err != nil {
			w.trouble(d, "fence", err)
			return true
		}
		o.stage = stageDrain
	case stageDrain:
		if o.lacking {
			pos, err := e.tell(o)
			if err != nil {
				failed(err.Error())
				return true
			}
			w.note("%s has told %s what it lacks of %s", d.id, o.peer, pos)
			e.events = append(e.events, baton.Event{Kind: baton.EvPrepared, Attempt: o.attempt, Position: baton.Position(pos)})
			o.stage = stageLoad
			return true
		}
		d.sure = vmdisk.Position{} // it may get another name now
		ctx, cancel := context.WithCancel(context.Background())
		o.cancel, o.drained, o.stage = cancel, make(chan drained, 1), stageDrained
		go func() {
			pos, err := e.disk.Drain(ctx, o.peer)
			o.drained <- drained{pos, err}
		}()
	case stageDrained:
		// How far the goroutine has come by itself must not depend on the computer: a seed has to replay.
		synctest.Wait()
		select {
		case r := <-o.drained:
			o.drained <- drained{}
			if r.err != nil {
				failed(r.err.Error())
				return true
			}
			w.note("%s has drained to %s at %s", d.id, o.peer, r.pos)
			e.events = append(e.events, baton.Event{Kind: baton.EvPrepared, Attempt: o.attempt, Position: baton.Position(r.pos)})
			o.stage = stageLoad
		default:
			return false
		}
	case stageLoad:
		if !o.live || !o.proceed {
			return false
		}
		o.stage = stageDone
		p := w.dev(o.peer)
		if !w.net.linked(d.id, p.id) || p.e == nil || p.e.incoming == nil || p.e.incoming.attempt != o.attempt ||
			p.guest == nil || p.guest.kind != incoming || p.guest.attempt != o.attempt || d.guest == nil {
			failed("the memory doesn't get through")
			return true
		}
		w.note("%s's memory is loaded at %s", d.id, p.id)
		p.guest.kind, p.guest.view, p.guest.term = loaded, d.guest.view, d.guest.term
		p.e.events = append(p.e.events, baton.Event{Kind: baton.EvLoadedLocal, Attempt: o.attempt})
		p.e.seal()
		p.touched = true
	}
	return true
}

func (e *engine) workIncoming() bool {
	r, d, w := e.incoming, e.d, e.d.w
	if e.disk == nil || !e.disk.Info().Complete {
		return false
	}
	r.started = true
	if w.chance(30) {
		w.note("%s's hypervisor doesn't start", d.id)
		e.events = append(e.events, baton.Event{Kind: baton.EvLocalFailed, Attempt: r.attempt})
		return true
	}
	if d.guest != nil {
		w.fail("%s starts a second hypervisor beside one that is %s", d.id, d.guest.kind)
		return true
	}
	d.guest = &guest{kind: incoming, attempt: r.attempt}
	e.events = append(e.events, baton.Event{Kind: baton.EvIncomingReady, Attempt: r.attempt})
	return true
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
		if !e.owner() || e.disk != nil && e.disk.Info().Hydrating || len(e.dir.Heads(vmID)) > 1 || d.guest == nil && d.suspended() || d.guest != nil && d.guest.kind != running && e.machine.State() == baton.Owned {
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

var errForeign = errors.New("a transfer between other devices")

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
	return t.Transfer, e.dir.AppendTransfer(t)
}

// passing says that an error of the directory may be gone later, with no harm done.
func passing(err error) bool {
	for _, e := range []error{directory.ErrGap, directory.ErrUnsure, directory.ErrUnknownDevice, errFlaky} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
