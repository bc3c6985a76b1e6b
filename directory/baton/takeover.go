package baton

// stepForced handles what concerns a history that branched. ok is false if the
// event is unknown.
func (m *Machine) stepForced(ev Event) (acts []Action, ok bool, err error) {
	switch ev.Kind {
	case EvTakeOver:
		acts, err = m.takeOver(ev)
		return acts, true, err
	case EvSuperseded:
		return m.superseded(ev), true, nil
	case EvJudged:
		return m.judged(ev), true, nil
	case EvChosen:
		return m.chosen(ev), true, nil
	case EvSetAside:
		return m.setAside(), true, nil
	}
	return nil, false, nil
}

// takeOver makes this device the owner because a person said so. An attempt to
// get the VM from its owner ends here: its loaded memory belongs to a disk that
// only the owner knows whole. A giver that still holds its guest lets it go on. An
// owner takes the VM from itself to go back to what its disk was before it was
// given: its guest has ended.
func (m *Machine) takeOver(ev Event) ([]Action, error) {
	if !named(ev.Peer) || ev.Term <= m.d.Term || m.d.Judge {
		return nil, m.illegal(ev)
	}
	var acts []Action
	m.back = m.state
	mode := modeCold
	switch m.state {
	case Replica:
	case Owned:
		if !ev.Mine {
			return nil, m.illegal(ev)
		}
	case Accepting, Loaded:
		m.back = Replica
		acts = m.abortTake(ReasonTakenOver, true)
	case Given:
		switch {
		case m.held:
			mode = modeRun
		case m.d.Live && !m.d.Returned:
			mode = modeStopped
		}
	case Ousted:
		if m.keeping || m.d.Chosen != 0 {
			return nil, m.illegal(ev)
		}
		m.judging = false
		mode = modeKept
	default:
		return nil, m.illegal(ev)
	}
	m.from = ev.Peer
	m.peerHolds = false
	m.mode = mode
	return append(acts, m.startTaking(durable{
		State:    Owned,
		Term:     ev.Term,
		Position: ev.Position,
		Aborted:  m.d.Aborted,
		Over:     ev.Term,
	}, true)), nil
}

// goOn makes the side that this device holds the one that was chosen.
func (m *Machine) goOn(term uint64, mode mode) []Action {
	m.after = 0
	m.endKeeping()
	m.peerHolds = false
	m.mode = mode
	return []Action{m.startTaking(durable{State: Owned, Term: term, Aborted: m.d.Aborted, Over: term}, false)}
}

// chosen is the person's decision about a side that this device holds.
func (m *Machine) chosen(ev Event) []Action {
	if !ev.Mine && !named(ev.Peer) || ev.Term <= m.d.Term {
		return nil
	}
	switch m.state {
	case Replica, Accepting, Loaded:
		if !ev.Mine {
			return nil // what is here was nobody's side
		}
	case Taking, Giving:
		if ev.Term <= m.next.Term {
			return nil
		}
	}
	if ev.Mine {
		return m.chosenMine(ev)
	}
	if m.state != Ousted {
		acts := m.oust(ev)
		if m.state != Ousted {
			return append(acts, m.judge()...)
		}
		return append(acts, m.lose(ev)...)
	}
	if ev.Term <= m.d.Chosen {
		return nil
	}
	return m.lose(ev)
}

func (m *Machine) chosenMine(ev Event) []Action {
	switch m.state {
	case Replica:
		if !m.d.Judge {
			return m.goOn(ev.Term, modeKept)
		}
	case Owned:
		return m.goOn(ev.Term, modeRenew)
	case Offering, Sending:
		return append(m.abortGive(ReasonChosen, true), m.goOn(ev.Term, modeRenew)...)
	case Ousted:
		if m.d.Chosen == 0 {
			return m.goOn(ev.Term, modeKept)
		}
		if ev.Term > max(m.d.Chosen, m.after) {
			// The disk is being read; it is ours once the restore point is whole.
			m.after = ev.Term
		}
	}
	// In the middle of something, the caller says it again. What was given goes
	// on with its taker: the consent counts more than the choice.
	return nil
}

// lose ends the side that this device holds, which the person gave up: first
// durably, so that no crash lets the guest go on.
func (m *Machine) lose(ev Event) []Action {
	begun := m.d.Chosen != 0
	m.endKeeping()
	m.after = 0
	m.d.State = Ousted
	m.d.Judge = false
	m.d.Chosen, m.d.Over, m.d.Owner = ev.Term, ev.Term, ev.Peer
	acts := []Action{{Kind: ActSave, State: m.d.encode()}}
	if begun {
		return acts // the restore point is the same
	}
	return append(acts, Action{Kind: ActKillHypervisor}, Action{Kind: ActSetAside, Term: m.d.Chosen})
}

func (m *Machine) setAside() []Action {
	switch {
	case m.state != Ousted || m.d.Chosen == 0:
		return nil
	case m.after != 0:
		return m.goOn(m.after, modeKept)
	}
	return m.yield()
}
