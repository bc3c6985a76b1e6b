package baton

// stepGiver handles what only a giver is asked. ok is false if the event is
// the taker's.
func (m *Machine) stepGiver(ev Event) (acts []Action, ok bool, err error) {
	switch ev.Kind {
	case EvPeerAsk:
		acts, err = m.peerAsk(ev)
		return acts, true, err
	case EvPeerReady:
		return m.peerReady(ev), true, nil
	case EvPrepared:
		acts, err = m.prepared(ev)
		return acts, true, err
	case EvPeerLoaded, EvPeerQuery, EvPeerCancel:
		return m.peerWaits(ev), true, nil
	case EvPeerAborted:
		return m.peerAborted(ev), true, nil
	case EvPeerActive:
		return m.peerActive(ev), true, nil
	}
	return nil, false, nil
}

func (m *Machine) peerAsk(ev Event) ([]Action, error) {
	refuse := func(reason string) []Action {
		return []Action{{Kind: ActSendRefuse, Peer: ev.Peer, Ask: ev.Ask, Reason: reason}}
	}
	if !named(ev.Peer) || !named(ev.Ask) {
		return nil, nil
	}
	switch m.state {
	case Owned:
	case Offering, Sending:
		if ev.Peer != m.try.peer || ev.Ask != m.try.ask {
			return refuse(ReasonBusy), nil
		}
		if m.state == Sending {
			return nil, nil
		}
		return []Action{m.offer()}, nil
	case Starting, Giving, Taking:
		return refuse(ReasonBusy), nil
	default:
		return refuse(ReasonNotOwner), nil
	}
	if !named(ev.Attempt) {
		return nil, m.illegal(ev)
	}
	m.try = try{ask: ev.Ask, attempt: ev.Attempt, peer: ev.Peer, term: m.d.Term, live: ev.Live}
	m.held = ev.Live
	m.enter(Offering)
	return []Action{m.offer()}, nil
}

func (m *Machine) offer() Action {
	return Action{Kind: ActSendOffer, Peer: m.try.peer, Ask: m.try.ask, Attempt: m.try.attempt, Term: m.d.Term, Live: m.try.live}
}

// current tells whether a message is about the attempt that this giver is in.
func (m *Machine) current(ev Event) bool {
	return ev.Peer == m.try.peer && ev.Attempt == m.try.attempt && ev.Attempt != ""
}

func (m *Machine) peerReady(ev Event) []Action {
	if m.state != Offering || !m.current(ev) || m.try.ready {
		return nil
	}
	m.try.ready = true
	m.enter(Offering)
	return []Action{{Kind: ActStartOutgoing, Peer: m.try.peer, Attempt: m.try.attempt, Live: m.try.live}}
}

func (m *Machine) prepared(ev Event) ([]Action, error) {
	switch {
	case m.state != Offering && m.state != Sending, ev.Attempt != m.try.attempt:
		return nil, nil // of an attempt that ended meanwhile
	case m.state == Sending || !m.try.ready:
		return nil, m.illegal(ev)
	}
	m.try.pos = ev.Position
	m.enter(Sending)
	if m.try.peerLoaded {
		return m.give(), nil
	}
	if !m.try.live {
		return nil, nil
	}
	return []Action{{Kind: ActContinueOutgoing, Peer: m.try.peer, Attempt: m.try.attempt}}, nil
}

// peerWaits answers a taker that is loaded, asks, or would rather not.
func (m *Machine) peerWaits(ev Event) []Action {
	switch {
	case (m.state == Offering || m.state == Sending) && m.current(ev):
		switch {
		case ev.Kind == EvPeerCancel:
			return m.abortGive(ReasonCancelled, true)
		case ev.Kind == EvPeerQuery:
			return nil // the answer is on its way
		case m.state == Sending:
			return m.give()
		}
		// Memory cannot be loaded before we let it through; a stopped VM has none.
		m.try.peerLoaded = !m.try.live
		return nil
	case m.state == Giving && ev.Attempt == m.next.Attempt && ev.Peer == m.next.Peer:
		return nil // the transfer follows
	case m.state == Given && !m.d.Returned && ev.Attempt == m.d.Attempt && ev.Peer == m.d.Peer:
		return m.sendGiven()
	}
	return []Action{{Kind: ActSendAbort, Peer: ev.Peer, Ask: ev.Ask, Attempt: ev.Attempt, Reason: ReasonUnknown}}
}

func (m *Machine) peerAborted(ev Event) []Action {
	if m.state != Offering && m.state != Sending || ev.Peer != m.try.peer {
		return nil
	}
	// A taker that never saw our offer knows only the name it gave itself.
	if ev.Attempt != m.try.attempt && (ev.Attempt != "" || ev.Ask != m.try.ask) {
		return nil
	}
	return m.abortGive(reasonOf(ev), false)
}

// abortGive ends the attempt: the guest goes on here, under the same term.
func (m *Machine) abortGive(reason string, tell bool) []Action {
	t := m.try
	acts := []Action{{Kind: ActResume, Term: m.d.Term, Guest: m.held, Attempt: t.attempt, Reason: reason}}
	if t.live && !m.held {
		acts = append(acts, Action{Kind: ActReportStopped, Term: m.d.Term})
	}
	if tell {
		acts = append(acts, Action{Kind: ActSendAbort, Peer: t.peer, Ask: t.ask, Attempt: t.attempt, Reason: reason})
	}
	m.try = try{}
	m.held = false
	m.enter(Owned)
	return acts
}

// give makes the transfer durable. From here on nothing resumes the guest here
// but the peer's returning it.
func (m *Machine) give() []Action {
	m.next = durable{
		State:    Given,
		Term:     m.d.Term + 1,
		Peer:     m.try.peer,
		Attempt:  m.try.attempt,
		Position: m.try.pos,
		Live:     m.try.live,
		Aborted:  m.d.Aborted,
		Over:     m.d.Over,
		Owner:    m.d.Owner,
	}
	m.retry, m.unsure = false, false
	m.enter(Giving)
	return []Action{m.persistAction()}
}

// giveBack sends the baton back to the device that still holds the guest.
func (m *Machine) giveBack(diskActive bool) []Action {
	m.next = m.d
	m.next.State = Given
	m.next.Term = m.d.Term + 1
	m.next.Returning, m.next.Held = false, false
	m.next.Returned = true
	m.retry, m.unsure = false, false
	m.enter(Giving)
	var acts []Action
	if diskActive {
		acts = append(acts, Action{Kind: ActFenceDisk, Term: m.d.Term})
	}
	return append(acts, m.persistAction())
}

// persistAction is the outstanding persist of Giving or Taking.
func (m *Machine) persistAction() Action {
	kind := ActPersistOwned
	switch {
	case m.state == Giving:
		kind = ActPersistGiven
	case m.state == Ousted:
		return Action{Kind: ActPersistKept, Term: m.next.Over, State: m.next.encode()}
	case m.forced:
		return Action{Kind: ActPersistTakeover, Peer: m.from, Term: m.next.Term, Position: m.next.Position, State: m.next.encode()}
	}
	return Action{
		Kind:     kind,
		Peer:     m.next.Peer,
		Term:     m.next.Term,
		Attempt:  m.next.Attempt,
		Position: m.next.Position,
		Live:     m.next.Live,
		Returned: m.next.Returned,
		State:    m.next.encode(),
	}
}

func (m *Machine) persisted(ev Event) ([]Action, error) {
	if m.answersOld(ev) {
		return nil, nil
	}
	if m.state == Ousted {
		m.kept(ev)
		return nil, nil
	}
	if (m.state != Giving && m.state != Taking) || ev.Term != m.next.Term {
		return nil, m.illegal(ev)
	}
	m.d = m.next
	m.retry = false
	if m.state == Taking {
		m.forced = false
		return m.taken(), nil
	}
	m.try = try{}
	m.enter(Given)
	return m.sendGiven(), nil
}

func (m *Machine) persistFailed(ev Event) ([]Action, error) {
	if m.answersOld(ev) {
		return nil, nil
	}
	if m.state == Ousted {
		if m.answersKept(ev) {
			m.retry, m.sent = true, m.now
		}
		return nil, nil
	}
	if (m.state != Giving && m.state != Taking) || ev.Term != m.next.Term {
		return nil, m.illegal(ev)
	}
	if m.state == Giving && ev.NotWritten && !m.unsure && !m.next.Returned {
		return m.abortGive(ReasonNotStored, true), nil
	}
	if m.forced && ev.NotWritten && !m.unsure {
		m.forced = false
		m.enter(m.back)
		return nil, nil
	}
	// It may be durable: then it is true, and only trying again can tell.
	m.retry, m.unsure = true, true
	m.sent = m.now
	return nil, nil
}

// sendGiven (re)sends the transfer that is durable here.
func (m *Machine) sendGiven() []Action {
	m.sent = m.now
	kind := ActSendTransfer
	if m.d.Returned {
		kind = ActSendReturned
	}
	return []Action{{
		Kind:      kind,
		Peer:      m.d.Peer,
		Attempt:   m.d.Attempt,
		Term:      m.d.Term,
		Position:  m.d.Position,
		Live:      m.d.Live,
		GuestHeld: m.held && !m.d.Returned,
	}}
}

func (m *Machine) peerActive(ev Event) []Action {
	if ev.Peer != m.d.Peer || ev.Term != m.d.Term {
		return nil
	}
	if m.state == Ousted {
		return m.wentOn()
	}
	if m.state != Given {
		return nil
	}
	var acts []Action
	if m.d.Live && !m.d.Returned {
		acts = append(acts, Action{Kind: ActKillHypervisor})
	}
	owner := m.d.Peer
	m.d = m.replica()
	m.held = false
	m.enter(Replica)
	return append(acts, Action{Kind: ActBecomeReplica, Peer: owner, Term: m.d.Term, State: m.d.encode()})
}

func reasonOf(ev Event) string {
	if ev.Reason == "" {
		return ReasonPeer
	}
	if len(ev.Reason) > maxName {
		return ev.Reason[:maxName]
	}
	return ev.Reason
}

func named(s string) bool { return s != "" && len(s) <= maxName }
