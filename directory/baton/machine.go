package baton

import (
	"errors"
	"fmt"
	"time"
)

// Errors of this package. A Step that returns one has changed nothing.
var (
	// ErrIllegal: the event is unknown, or cannot happen in this state unless
	// the caller made a mistake (or, for a transfer, the history is forked).
	ErrIllegal = errors.New("event is not legal in this state")
	// ErrTooLate: the baton is being given or taken and cannot be called back.
	ErrTooLate = errors.New("too late to cancel")
	// ErrCorrupt: the stored state cannot be read.
	ErrCorrupt = errors.New("stored hand-off is damaged")
	// ErrVersion: the stored state was written by a newer program.
	ErrVersion = errors.New("stored hand-off has an unknown version")
)

// Config sets the machine's time limits. The zero value of each means its default.
type Config struct {
	OfferTimeout  time.Duration // Offering without progress, default 60 s
	SendTimeout   time.Duration // Sending without progress, default 30 s
	AcceptTimeout time.Duration // Accepting without progress, default 90 s
	RetryEvery    time.Duration // between resends, default 2 s
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.OfferTimeout, 60*time.Second)
	def(&c.SendTimeout, 30*time.Second)
	def(&c.AcceptTimeout, 90*time.Second)
	def(&c.RetryEvery, 2*time.Second)
	return c
}

// try is the attempt under way, on either side. It does not survive a restart.
type try struct {
	ask, attempt string
	peer         string
	term         uint64 // the giver's, as offered
	live         bool
	ready        bool // giver: the taker is ready; taker: told so
	peerLoaded   bool
	cancel       bool // taker: the person wants it cancelled
	pos          Position
}

// how a VM that was just taken goes on.
type mode int

const (
	modeRun     mode = 1 // its hypervisor is here, loaded
	modeCold    mode = 2 // it was stopped before
	modeStopped mode = 3 // its memory is lost
	modeReturn  mode = 4 // the giver holds it, it goes back
	modeKept    mode = 5 // it stands here, paused, if it ran at all
	modeRenew   mode = 6 // it runs here, only the term is new
)

// Machine is the hand-off of one VM on one device. Use one goroutine.
type Machine struct {
	cfg   Config
	ready bool // false between Decode and restart
	state State
	d     durable // persisted
	next  durable // being persisted, in Taking, Giving and Ousted
	try   try

	held      bool // this device's hypervisor holds the guest of the hand-off
	peerHolds bool // Taking, Starting: the giver does
	mode      mode // Taking
	retry     bool // Taking, Giving, Ousted: the persist failed
	unsure    bool // Taking, Giving: an earlier try may be durable

	forced  bool   // Taking: by takeover
	from    string // Taking, forced: whose VM it was
	back    State  // Taking, forced: where it came from
	judging bool   // the answer to judge is outstanding
	keeping bool   // Ousted: the answer to persist-kept is outstanding
	after   uint64 // Ousted, being set aside: a newer choice, by which it goes on here
	old     bool   // the answer to a persist that does not matter any more is outstanding

	now   time.Time // of the last tick
	since time.Time // last progress; zero: from the next tick on
	sent  time.Time // last resend
}

// NewReplica returns the machine of a device that has never owned the VM.
func NewReplica(cfg Config) *Machine {
	return &Machine{cfg: cfg.withDefaults(), ready: true, state: Replica, d: durable{State: Replica}}
}

// NewOwner returns the machine of a device that has just created the VM under
// term (1 for a new VM). The caller stores Encode before it uses the VM.
func NewOwner(cfg Config, term uint64) (*Machine, error) {
	if term == 0 {
		return nil, fmt.Errorf("baton: new owner of term 0: %w", ErrIllegal)
	}
	return &Machine{cfg: cfg.withDefaults(), ready: true, state: Owned, d: durable{State: Owned, Term: term}}, nil
}

// Decode returns the machine that Encode or an action's State described. Its
// first event must be restart. Errors: ErrCorrupt, ErrVersion.
func Decode(cfg Config, b []byte) (*Machine, error) {
	d, err := decode(b)
	if err != nil {
		return nil, err
	}
	state := d.State
	if state == Accepting {
		state = Replica
	}
	return &Machine{cfg: cfg.withDefaults(), state: state, d: d}, nil
}

// Encode returns the durable part, as last persisted: versioned JSON. The
// caller owns the bytes.
func (m *Machine) Encode() []byte { return m.d.encode() }

// State returns where the machine stands.
func (m *Machine) State() State { return m.state }

// Term returns the highest term that this device durably accepted or gave away.
func (m *Machine) Term() uint64 { return m.d.Term }

// Owner tells whether this device durably owns the VM under Term: the only
// states in which the guest may ever run here, and its disk be active.
func (m *Machine) Owner() bool {
	switch m.state {
	case Starting, Owned, Offering, Sending:
		return true
	}
	return false
}

// Over returns the term of the head that this device was last told to be
// superseded by, or that it superseded others with, or 0. Where the preferred
// head is an older one again (the newer is void), a replica has to be told so
// by EvSuperseded, even if that head is its own: transfers below Over are ignored.
func (m *Machine) Over() uint64 { return m.d.Over }

// Judging tells whether nothing may overwrite this device's disk: it is the
// owner's, or a guest is held here that belongs to it, or it was not compared
// with the VM's history yet.
func (m *Machine) Judging() bool {
	switch m.state {
	case Replica, Accepting, Loaded:
		return m.d.Judge
	}
	return true
}

// Peer returns the other device of the hand-off under way, or "".
func (m *Machine) Peer() string {
	switch m.state {
	case Accepting, Loaded, Offering, Sending:
		return m.try.peer
	case Taking, Giving:
		return m.next.Peer
	case Starting, Given:
		return m.d.Peer
	}
	return ""
}

// Attempt returns the name of the hand-off under way, or "".
func (m *Machine) Attempt() string {
	switch m.state {
	case Accepting, Loaded, Offering, Sending:
		return m.try.attempt
	case Taking, Giving:
		return m.next.Attempt
	case Starting, Given:
		return m.d.Attempt
	}
	return ""
}

// Step takes one event and returns what to do, in the order in which it must
// be done (and made durable). Errors: ErrIllegal, ErrTooLate.
func (m *Machine) Step(ev Event) ([]Action, error) {
	if !m.ready {
		if ev.Kind != EvRestart {
			return nil, m.illegal(ev)
		}
		return m.restart(ev.Facts), nil
	}
	switch ev.Kind {
	case EvTick:
		return m.tick(ev.Now), nil
	case EvCancel:
		return m.cancel(ev)
	case EvProgress:
		m.since = time.Time{}
		return nil, nil
	case EvPersisted:
		return m.persisted(ev)
	case EvPersistFailed:
		return m.persistFailed(ev)
	case EvHypervisorDied:
		return m.hypervisorDied(), nil
	case EvLinkUp:
		return m.linkUp(ev.Peer), nil
	case EvLinkLost:
		return m.linkLost(ev.Peer), nil
	case EvLocalFailed:
		return m.localFailed(ev), nil
	}
	if acts, ok, err := m.stepGiver(ev); ok {
		return acts, err
	}
	if acts, ok, err := m.stepTaker(ev); ok {
		return acts, err
	}
	if acts, ok, err := m.stepForced(ev); ok {
		return acts, err
	}
	return nil, m.illegal(ev)
}

func (m *Machine) illegal(ev Event) error {
	return fmt.Errorf("baton: %.40q in %s: %w", string(ev.Kind), m.state, ErrIllegal)
}

// enter changes the state and starts its time limit anew.
func (m *Machine) enter(s State) {
	m.state = s
	m.since = time.Time{}
	m.sent = m.now
}

func (m *Machine) tick(now time.Time) []Action {
	m.now = now
	if m.since.IsZero() {
		m.since = now
	}
	waited := now.Sub(m.since)
	due := now.Sub(m.sent) >= m.cfg.RetryEvery
	switch m.state {
	case Offering:
		if waited >= m.cfg.OfferTimeout {
			return m.abortGive(ReasonTimeout, true)
		}
	case Sending:
		if waited >= m.cfg.SendTimeout {
			return m.abortGive(ReasonTimeout, true)
		}
	case Accepting:
		if waited >= m.cfg.AcceptTimeout {
			return m.abortTake(ReasonTimeout, true)
		}
	case Loaded:
		if due {
			m.sent = now
			return m.askAgain(ActSendLoaded)
		}
	case Given:
		if due {
			return m.sendGiven()
		}
	case Giving, Taking, Ousted:
		if m.retry && due {
			m.sent = now
			m.retry = false
			return []Action{m.persistAction()}
		}
	}
	return nil
}

func (m *Machine) cancel(ev Event) ([]Action, error) {
	switch m.state {
	case Offering, Sending:
		return m.abortGive(ReasonCancelled, true), nil
	case Accepting:
		return m.abortTake(ReasonCancelled, true), nil
	case Loaded:
		// Only the giver knows whether the baton has left it: it decides.
		m.try.cancel = true
		m.sent = m.now
		return m.askAgain(ActSendLoaded), nil
	case Taking, Starting, Giving, Given:
		return nil, fmt.Errorf("baton: cancel in %s: %w", m.state, ErrTooLate)
	}
	return nil, m.illegal(ev)
}

func (m *Machine) linkUp(peer string) []Action {
	switch {
	case m.state == Loaded && peer == m.try.peer:
		m.sent = m.now
		return m.askAgain(ActSendQuery)
	case m.state == Given && peer == m.d.Peer:
		return m.sendGiven()
	}
	return nil
}

func (m *Machine) linkLost(peer string) []Action {
	if m.try.peer != peer {
		return nil
	}
	switch m.state {
	case Offering, Sending:
		return m.abortGive(ReasonLinkLost, true)
	case Accepting:
		return m.abortTake(ReasonLinkLost, true)
	}
	return nil
}

func (m *Machine) localFailed(ev Event) []Action {
	if m.try.attempt != ev.Attempt {
		return nil
	}
	reason := ev.Reason
	if reason == "" {
		reason = ReasonFailed
	}
	switch m.state {
	case Offering, Sending:
		return m.abortGive(reason, true)
	case Accepting, Loaded:
		return m.abortTake(reason, true)
	}
	return nil
}

func (m *Machine) hypervisorDied() []Action {
	m.held = false
	switch m.state {
	case Offering:
		return m.abortGive(ReasonDied, true)
	case Accepting, Loaded:
		if m.try.live {
			return m.abortTake(ReasonDied, true)
		}
	case Taking:
		if m.mode == modeRun {
			m.mode = modeStopped
			if m.peerHolds {
				m.mode = modeReturn
			}
		}
	case Starting:
		return m.startedStopped()
	case Ousted:
		if m.judging { // the guest counted
			return m.judge()
		}
	}
	// In Sending the taker may have all of the memory already: it is asked to
	// prove that, or the time limit ends the attempt.
	return nil
}

// restart brings a decoded machine to a state that needs nothing volatile.
func (m *Machine) restart(f Facts) []Action {
	m.ready = true
	var acts []Action
	switch m.d.State {
	case Owned:
		m.enter(Owned)
		if m.d.Held && m.d.Live && !f.HypervisorAlive && !f.DiskActive {
			m.d.Returning = true // nothing ever ran here, and the giver still has it
		}
		if f.Superseded > m.d.Term {
			return m.superseded(f.superseded())
		}
		if m.d.Returning {
			return m.giveBack(f.DiskActive)
		}
		acts = append(acts, Action{Kind: ActResume, Term: m.d.Term, Guest: f.HypervisorAlive, Reason: ReasonRestarted})
		if m.d.Peer != "" {
			acts = append(acts, Action{Kind: ActSendActive, Peer: m.d.Peer, Term: m.d.Term})
		}
	case Given:
		m.enter(Given)
		if f.Superseded > m.d.Term {
			return m.superseded(f.superseded())
		}
		if f.DiskActive {
			acts = append(acts, Action{Kind: ActFenceDisk, Term: m.d.Term})
		}
		m.held = f.HypervisorAlive && m.d.Live && !m.d.Returned
		if f.HypervisorAlive && !m.held {
			acts = append(acts, Action{Kind: ActKillHypervisor})
		}
		acts = append(acts, m.sendGiven()...)
	case Ousted:
		return m.restartOusted(f)
	default:
		m.enter(Replica)
		if f.DiskActive {
			acts = append(acts, Action{Kind: ActFenceDisk, Term: m.d.Term})
		}
		accepting := m.d.State == Accepting
		if f.HypervisorAlive || accepting {
			acts = append(acts, Action{Kind: ActKillHypervisor})
		}
		if accepting {
			peer, attempt := m.d.Peer, m.d.Attempt
			m.d = m.replica().aborting(attempt)
			acts = append(acts,
				Action{Kind: ActRecordAbort, Peer: peer, Attempt: attempt, Reason: ReasonRestarted, State: m.d.encode()},
				Action{Kind: ActSendAborted, Peer: peer, Attempt: attempt, Reason: ReasonRestarted})
		}
		if f.Superseded != 0 && f.Superseded != m.d.Over {
			acts = append(acts, m.superseded(f.superseded())...)
		} else if m.d.Judge {
			acts = append(acts, m.judge()...)
		}
	}
	return acts
}

// replica is the durable state of a device that is neither owner nor on its way.
func (m *Machine) replica() durable {
	return durable{State: Replica, Term: m.d.Term, Aborted: m.d.Aborted, Over: m.d.Over, Owner: m.d.Owner, Judge: m.d.Judge}
}
