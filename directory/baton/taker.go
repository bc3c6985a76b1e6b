package baton

import "slices"

// stepTaker handles what only a taker is told. ok is false if the event is
// unknown.
func (m *Machine) stepTaker(ev Event) (acts []Action, ok bool, err error) {
	switch ev.Kind {
	case EvWant:
		acts, err = m.want(ev)
		return acts, true, err
	case EvPeerOffer:
		return m.peerOffer(ev), true, nil
	case EvPeerRefuse:
		return m.peerRefuse(ev), true, nil
	case EvPeerAbort:
		return m.peerAbort(ev), true, nil
	case EvIncomingReady:
		acts, err = m.incomingReady(ev)
		return acts, true, err
	case EvLoadedLocal:
		acts, err = m.loadedLocal(ev)
		return acts, true, err
	case EvPeerTransfer, EvPeerReturned:
		acts, err = m.peerTransfer(ev)
		return acts, true, err
	case EvLearned:
		return m.learned(ev), true, nil
	case EvClaim:
		ev.GuestHeld = false
		acts, err = m.peerTransfer(ev)
		return acts, true, err
	case EvGuestRuns:
		if m.state == Ousted {
			return []Action{{Kind: ActPauseGuest}}, true, nil
		}
		return m.guestRuns(), true, nil
	case EvGuestFailed:
		return m.guestFailed(ev), true, nil
	}
	return nil, false, nil
}

func (m *Machine) want(ev Event) ([]Action, error) {
	if m.state != Replica || m.d.Judge || !named(ev.Peer) || !named(ev.Ask) {
		return nil, m.illegal(ev)
	}
	m.try = try{ask: ev.Ask, peer: ev.Peer}
	m.enter(Accepting)
	return []Action{{Kind: ActSendAsk, Peer: ev.Peer, Ask: ev.Ask}}, nil
}

func (m *Machine) peerOffer(ev Event) []Action {
	mine := (m.state == Accepting || m.state == Loaded) && ev.Peer == m.try.peer && ev.Ask == m.try.ask
	if mine && ev.Attempt == m.try.attempt {
		return nil // doubled
	}
	if !mine || m.try.attempt != "" || !named(ev.Attempt) || ev.Term < max(m.d.Term, m.d.Over) || slices.Contains(m.d.Aborted, ev.Attempt) {
		// The giver must not stop its guest for an attempt that nobody is in.
		return []Action{{Kind: ActSendAborted, Peer: ev.Peer, Ask: ev.Ask, Attempt: ev.Attempt, Reason: ReasonUnknown}}
	}
	m.try.attempt = ev.Attempt
	m.try.term = ev.Term
	m.try.live = ev.Live
	m.d = m.replica()
	m.d.State = Accepting
	m.d.Peer = ev.Peer
	m.d.Attempt = ev.Attempt
	acts := []Action{{Kind: ActSave, State: m.d.encode()}}
	if ev.Live {
		m.enter(Accepting)
		return append(acts, Action{Kind: ActStartIncoming, Peer: ev.Peer, Attempt: ev.Attempt})
	}
	m.try.ready = true
	m.enter(Loaded)
	return append(acts,
		Action{Kind: ActSendReady, Peer: ev.Peer, Attempt: ev.Attempt},
		Action{Kind: ActSendLoaded, Peer: ev.Peer, Attempt: ev.Attempt})
}

func (m *Machine) incomingReady(ev Event) ([]Action, error) {
	if (m.state != Accepting && m.state != Loaded) || ev.Attempt != m.try.attempt || ev.Attempt == "" {
		return nil, nil
	}
	if m.state == Loaded || m.try.ready {
		return nil, m.illegal(ev)
	}
	m.try.ready = true
	m.enter(Accepting)
	return []Action{{Kind: ActSendReady, Peer: m.try.peer, Attempt: m.try.attempt}}, nil
}

func (m *Machine) loadedLocal(ev Event) ([]Action, error) {
	if (m.state != Accepting && m.state != Loaded) || ev.Attempt != m.try.attempt || ev.Attempt == "" {
		return nil, nil
	}
	if m.state == Loaded || !m.try.ready {
		return nil, m.illegal(ev)
	}
	m.enter(Loaded)
	return []Action{{Kind: ActSendLoaded, Peer: m.try.peer, Attempt: m.try.attempt}}, nil
}

// askAgain repeats what the giver must answer: a cancellation goes first.
func (m *Machine) askAgain(kind ActionKind) []Action {
	if m.try.cancel {
		kind = ActSendCancel
	}
	return []Action{{Kind: kind, Peer: m.try.peer, Ask: m.try.ask, Attempt: m.try.attempt}}
}

func (m *Machine) peerRefuse(ev Event) []Action {
	if m.state != Accepting || ev.Peer != m.try.peer || ev.Ask != m.try.ask || m.try.attempt != "" {
		return nil
	}
	return m.abortTake(reasonOf(ev), false)
}

func (m *Machine) peerAbort(ev Event) []Action {
	if (m.state != Accepting && m.state != Loaded) || ev.Peer != m.try.peer || ev.Attempt != m.try.attempt || ev.Attempt == "" {
		return nil
	}
	return m.abortTake(reasonOf(ev), false)
}

// abortTake ends the attempt on the taker's side.
func (m *Machine) abortTake(reason string, tell bool) []Action {
	t := m.try
	m.d = m.replica().aborting(t.attempt)
	m.try = try{}
	m.enter(Replica)
	var acts []Action
	if t.live {
		acts = append(acts, Action{Kind: ActKillHypervisor})
	}
	acts = append(acts, Action{Kind: ActRecordAbort, Peer: t.peer, Ask: t.ask, Attempt: t.attempt, Reason: reason, State: m.d.encode()})
	if tell {
		acts = append(acts, Action{Kind: ActSendAborted, Peer: t.peer, Ask: t.ask, Attempt: t.attempt, Reason: reason})
	}
	return acts
}

// peerTransfer takes a verified transfer of the VM to this device.
func (m *Machine) peerTransfer(ev Event) ([]Action, error) {
	// What is being written goes first: an answer to a transfer of ours may
	// overtake our knowing that it is durable.
	if m.state == Taking || m.state == Starting || m.state == Giving && ev.Term > m.next.Term || !named(ev.Peer) || ev.Term == 0 {
		return nil, nil // it is sent again until we can answer
	}
	if m.state == Ousted {
		return m.oustedTransfer(ev), nil
	}
	if ev.Term < m.d.Over || m.d.Judge {
		// Its giver has lost the VM too and will learn that from the history, or
		// it is sent again until we know what our own disk is worth.
		return nil, nil
	}
	if ev.Term <= m.d.Term {
		return m.alreadyTaken(ev), nil
	}
	switch m.state {
	case Owned, Offering, Sending, Giving:
		return nil, m.illegal(ev)
	}
	return m.take(ev), nil
}

// alreadyTaken answers a giver that has not heard of our success yet.
func (m *Machine) alreadyTaken(ev Event) []Action {
	switch {
	case ev.Kind == EvClaim:
		return nil
	case m.state == Giving && m.next.Returned:
		return nil // the answer is being written
	case m.state == Given && m.d.Returned && ev.Peer == m.d.Peer && ev.Term+1 == m.d.Term:
		return m.sendGiven()
	}
	return []Action{{Kind: ActSendActive, Peer: ev.Peer, Term: ev.Term}}
}

// take accepts the ownership that a verified transfer proves. It is valid even
// if the attempt it belongs to has ended here; then only the memory is missing.
func (m *Machine) take(ev Event) []Action {
	var acts []Action
	d := m.replica()
	loaded := m.state == Loaded && ev.Peer == m.try.peer && ev.Attempt == m.try.attempt && ev.Term == m.try.term+1
	backHome := m.state == Given && ev.Kind == EvPeerReturned && ev.Peer == m.d.Peer && ev.Term == m.d.Term+1 && m.held
	switch {
	case backHome:
		m.mode = modeRun
	case loaded && m.try.live:
		m.mode = modeRun
	case loaded:
		m.mode = modeCold
	case ev.GuestHeld:
		m.mode = modeReturn
	case ev.Live:
		m.mode = modeStopped
	default:
		m.mode = modeCold
	}
	if !loaded && (m.state == Accepting || m.state == Loaded) {
		if m.try.live {
			acts = append(acts, Action{Kind: ActKillHypervisor})
		}
		d = d.aborting(m.try.attempt)
	}
	if m.state == Given && !backHome && m.d.Live && !m.d.Returned {
		acts = append(acts, Action{Kind: ActKillHypervisor})
		m.held = false
	}
	m.peerHolds = ev.GuestHeld
	d.State = Owned
	d.Term = ev.Term
	d.Peer = ev.Peer
	d.Attempt = ev.Attempt
	d.Position = ev.Position
	d.Live = ev.Live
	d.Returning = m.mode == modeReturn
	d.Held = ev.GuestHeld
	return append(acts, m.startTaking(d, false))
}

// startTaking makes ownership durable: taken over by force, or as a transfer says.
func (m *Machine) startTaking(d durable, forced bool) Action {
	m.next = d
	m.try = try{}
	m.forced = forced
	m.retry, m.unsure = false, false
	m.enter(Taking)
	return m.persistAction()
}

// learned is a transfer that came by another way than from its giver. What the
// giver would add is unknown, but it is in Given and will say it; only if all
// is here already there is nothing to wait for.
func (m *Machine) learned(ev Event) []Action {
	if m.state != Loaded || ev.Peer != m.try.peer || ev.Attempt != m.try.attempt || ev.Term != m.try.term+1 || m.d.Judge {
		return nil
	}
	ev.Live = m.try.live
	ev.GuestHeld = m.try.live
	return m.take(ev)
}

// taken goes on after the ownership became durable.
func (m *Machine) taken() []Action {
	if m.mode == modeReturn {
		return m.giveBack(false)
	}
	if m.mode == modeRenew {
		m.enter(Owned)
		return []Action{{Kind: ActRenewTerm, Term: m.d.Term}}
	}
	acts := []Action{{Kind: ActActivateDisk, Term: m.d.Term}}
	switch m.mode {
	case modeKept:
		acts = append(acts, Action{Kind: ActResume, Term: m.d.Term, Guest: true, Reason: ReasonChosen})
	case modeRun:
		m.enter(Starting)
		return append(acts, Action{Kind: ActRunGuest, Term: m.d.Term, Attempt: m.d.Attempt})
	case modeStopped:
		acts = append(acts, Action{Kind: ActReportStopped, Term: m.d.Term})
	}
	m.enter(Owned)
	return append(acts, m.active()...)
}

// active tells the giver, if there was one.
func (m *Machine) active() []Action {
	if m.d.Peer == "" {
		return nil
	}
	return []Action{{Kind: ActSendActive, Peer: m.d.Peer, Term: m.d.Term}}
}

func (m *Machine) guestRuns() []Action {
	if m.state != Starting {
		return nil
	}
	m.held = false
	m.enter(Owned)
	return m.active()
}

func (m *Machine) guestFailed(ev Event) []Action {
	if m.state != Starting {
		return nil
	}
	if ev.NeverRan && m.peerHolds {
		return append([]Action{{Kind: ActKillHypervisor}}, m.giveBack(true)...)
	}
	return append([]Action{{Kind: ActKillHypervisor}}, m.startedStopped()...)
}

// startedStopped: the guest may have run and written, so only this disk is the
// newest. It stays, stopped.
func (m *Machine) startedStopped() []Action {
	m.held = false
	m.enter(Owned)
	return append([]Action{{Kind: ActReportStopped, Term: m.d.Term}}, m.active()...)
}
