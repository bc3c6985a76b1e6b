package baton

func (f Facts) superseded() Event {
	return Event{Kind: EvSuperseded, Peer: f.Owner, Term: f.Superseded}
}

// superseded: another device owns the VM by a history that this one's is no
// part of, or that this replica may be beyond. Nothing that is here goes on, and
// nothing is lost, until it has been compared.
func (m *Machine) superseded(ev Event) []Action {
	if ev.Term == 0 || !named(ev.Peer) {
		return nil
	}
	switch m.state {
	case Replica, Accepting, Loaded:
		return m.supersededReplica(ev)
	case Ousted:
		return m.supersededAgain(ev)
	case Taking, Giving:
		if ev.Term <= m.next.Term {
			return nil
		}
	default:
		if ev.Term <= m.d.Term {
			return nil
		}
	}
	return append(m.oust(ev), m.judge()...)
}

func (m *Machine) supersededReplica(ev Event) []Action {
	if ev.Term == m.d.Over {
		if m.judging {
			return m.judge()
		}
		return nil
	}
	var acts []Action
	if m.state != Replica && !m.takesFrom(ev) {
		acts = m.abortTake(ReasonOusted, true)
	}
	m.d.Over, m.d.Owner, m.d.Judge = ev.Term, ev.Peer, true
	return append(append(acts, Action{Kind: ActSave, State: m.d.encode()}), m.judge()...)
}

// takesFrom tells whether the attempt is to take the VM from the history that
// ev tells of.
func (m *Machine) takesFrom(ev Event) bool {
	if m.try.attempt == "" {
		return m.try.peer == ev.Peer
	}
	return m.try.term+1 >= ev.Term // perhaps it was given to us already
}

// supersededAgain: the history went on. It may have all that is held here by
// now, or not show any more that something is, as after a takeover from the side
// that was chosen here and not begun yet.
func (m *Machine) supersededAgain(ev Event) []Action {
	if ev.Term == m.d.Over {
		if m.judging {
			return m.judge()
		}
		return nil
	}
	m.d.Over, m.d.Owner = ev.Term, ev.Peer
	if m.d.Chosen != 0 {
		return []Action{{Kind: ActSave, State: m.d.encode()}}
	}
	m.endKeeping()
	m.d.Kept = false
	return append([]Action{{Kind: ActSave, State: m.d.encode()}}, m.judge()...)
}

// oust stops all that this device does with the VM. What it holds stays, paused
// and fenced, in Ousted; where nothing of it ever began here, it is a replica.
func (m *Machine) oust(ev Event) []Action {
	d := m.replica()
	d.State = Ousted
	var tell []Action
	abort := func(peer, ask, attempt string) {
		tell = append(tell, Action{Kind: ActSendAbort, Peer: peer, Ask: ask, Attempt: attempt, Reason: ReasonOusted})
	}
	switch m.state {
	case Taking:
		m.oustTaking(&d)
	case Giving:
		// The transfer may be durable. It is not sent, and nothing depends on it.
		if !m.next.Returned {
			abort(m.try.peer, m.try.ask, m.try.attempt)
		}
		d.Term, d.Peer = m.next.Term, m.next.Peer
		m.expectOld()
	case Given:
		d.Peer = m.d.Peer
	case Offering, Sending:
		abort(m.try.peer, m.try.ask, m.try.attempt)
		d.Took = true
	default:
		// Where the guest may not have run here, its giver may not end it.
		d.Took = !m.d.Returning && !(m.state == Starting && m.peerHolds)
	}
	d.Over, d.Owner = ev.Term, ev.Peer
	d.Judge = d.State == Replica
	m.d = d
	m.try = try{}
	m.held, m.peerHolds, m.forced, m.retry, m.unsure = false, false, false, false, false
	m.enter(d.State)
	if d.State == Replica {
		// A loaded guest that never ran is only a copy of the giver's.
		return []Action{{Kind: ActSave, State: d.encode()}, {Kind: ActKillHypervisor}}
	}
	return append([]Action{
		{Kind: ActPauseGuest},
		{Kind: ActFenceDisk, Term: d.Term},
		{Kind: ActSave, State: d.encode()},
	}, tell...)
}

// oustTaking decides what is left of an ownership that was being written, and
// may be durable.
func (m *Machine) oustTaking(d *durable) {
	m.expectOld()
	own := m.mode == modeRenew || m.mode == modeKept || m.mode == modeRun && !m.peerHolds
	if own || m.forced {
		d.Term = m.next.Term
	}
	if !own {
		d.State = Replica
		return
	}
	// Whoever gave it to us waits for the answer, and holds nothing itself.
	d.Took = m.mode == modeRun && !m.forced
}

// expectOld remembers that the answer to a persist may still come.
func (m *Machine) expectOld() {
	if !m.retry {
		m.old = true
	}
}

// answersOld tells whether ev is the answer to a persist that does not matter
// any more.
func (m *Machine) answersOld(ev Event) bool {
	old := m.old && !(m.state == Taking && ev.Term == m.next.Term)
	m.old = m.old && !old
	return old
}

// endKeeping forgets that something was to be made known.
func (m *Machine) endKeeping() {
	if m.keeping {
		m.expectOld()
	}
	m.judging, m.keeping, m.retry = false, false, false
}

func (m *Machine) judge() []Action {
	m.judging = true
	return []Action{{Kind: ActJudge, Term: m.d.Over, Guest: m.state == Ousted}}
}

func (m *Machine) judged(ev Event) []Action {
	if !m.judging || ev.Term != m.d.Over {
		return nil
	}
	m.judging = false
	if m.state == Ousted {
		if !ev.Newer {
			return m.yield()
		}
		return m.keep()
	}
	if !ev.Newer {
		m.d.Judge = false
		return []Action{{Kind: ActSave, State: m.d.encode()}}
	}
	var acts []Action
	if m.state != Replica {
		acts = m.abortTake(ReasonOusted, true)
	}
	m.d.State, m.d.Judge = Ousted, false
	return append(acts, m.keep()...)
}

// keep makes known that this device holds something of its own.
func (m *Machine) keep() []Action {
	m.next = m.d
	m.next.Kept = true
	m.keeping, m.retry = true, false
	m.enter(Ousted)
	return []Action{m.persistAction()}
}

// answersKept tells whether ev is the answer to the outstanding persist-kept: to
// this one, not to an earlier one about another head.
func (m *Machine) answersKept(ev Event) bool { return m.keeping && ev.Term == m.next.Over }

func (m *Machine) kept(ev Event) {
	if m.answersKept(ev) {
		m.keeping, m.retry = false, false
		m.d.Kept = true
	}
}

// yield ends a side that holds nothing, or whose restore point is made.
func (m *Machine) yield() []Action {
	over, owner := m.d.Over, m.d.Owner
	m.d = m.replica()
	m.d.Term = max(m.d.Term, over)
	m.enter(Replica)
	return []Action{
		{Kind: ActYieldDisk, Term: over},
		{Kind: ActBecomeReplica, Peer: owner, Term: m.d.Term, State: m.d.encode()},
	}
}

// wentOn: the device that we had given the VM to has it, and with it the guest
// that is held here.
func (m *Machine) wentOn() []Action {
	if m.d.Took || m.d.Kept || m.keeping || m.d.Chosen != 0 {
		return nil
	}
	m.d.Peer = ""
	return append([]Action{{Kind: ActKillHypervisor}, {Kind: ActSave, State: m.d.encode()}}, m.judge()...)
}

// oustedTransfer answers the giver of what was taken before it was lost.
func (m *Machine) oustedTransfer(ev Event) []Action {
	if m.d.Took && ev.Term == m.d.Term && ev.Kind != EvClaim {
		return []Action{{Kind: ActSendActive, Peer: ev.Peer, Term: ev.Term}}
	}
	return nil
}

func (m *Machine) restartOusted(f Facts) []Action {
	m.enter(Ousted)
	var acts []Action
	if f.DiskActive {
		acts = append(acts, Action{Kind: ActFenceDisk, Term: m.d.Term})
	}
	if m.d.Chosen != 0 {
		return append(acts, Action{Kind: ActKillHypervisor}, Action{Kind: ActSetAside, Term: m.d.Chosen})
	}
	if f.HypervisorAlive {
		acts = append(acts, Action{Kind: ActPauseGuest})
	}
	if f.Superseded != 0 && f.Superseded != m.d.Over {
		return append(acts, m.superseded(f.superseded())...)
	}
	if !m.d.Kept {
		acts = append(acts, m.judge()...)
	}
	return acts
}
