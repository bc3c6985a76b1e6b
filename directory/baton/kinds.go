package baton

import "time"

// State is where the machine stands.
type State string

// States of a machine. The first five are the taker's way, the next five the
// giver's, the last one that of a device which lost the VM without its consent.
const (
	Replica   State = "replica"   // has a copy, or nothing at all; may not run the VM
	Accepting State = "accepting" // asked for the VM; its hypervisor, if any, is paused and its disk fenced
	Loaded    State = "loaded"    // could run at once, waits for the transfer
	Taking    State = "taking"    // ownership is being written durably
	Starting  State = "starting"  // owner; the guest was told to go on and has not said so yet
	Owned     State = "owned"     // owner
	Offering  State = "offering"  // owner; offered the VM to a peer, the guest may still run
	Sending   State = "sending"   // owner; guest stopped, disk fenced, the rest is under way
	Giving    State = "giving"    // the transfer is being written durably
	Given     State = "given"     // not the owner any more; the transfer is resent until the peer answers
	Ousted    State = "ousted"    // another device is the owner now; what is here may be newer: guest paused or gone, disk fenced
)

// EventKind names an event.
type EventKind string

// Events of this device.
const (
	EvRestart        EventKind = "restart"         // Facts; the first event after Decode
	EvWant           EventKind = "want"            // Peer (the owner), Ask (fresh, random)
	EvCancel         EventKind = "cancel"          // the person changed their mind
	EvProgress       EventKind = "progress"        // bytes moved: the time limit starts anew
	EvIncomingReady  EventKind = "incoming-ready"  // Attempt; the hypervisor waits for memory, paused
	EvLoadedLocal    EventKind = "loaded-local"    // Attempt; the hypervisor's own proof that it could run
	EvPrepared       EventKind = "prepared"        // Attempt, Position; stopped by us, drained, flushed, fenced, the taker's replica complete
	EvLocalFailed    EventKind = "local-failed"    // Attempt, Reason; this side cannot go on with it
	EvHypervisorDied EventKind = "hypervisor-died" // this VM's hypervisor on this device is gone
	EvPersisted      EventKind = "persisted"       // Term; the outstanding persist action is durable
	EvPersistFailed  EventKind = "persist-failed"  // Term, NotWritten
	EvGuestRuns      EventKind = "guest-runs"      // run-guest worked
	EvGuestFailed    EventKind = "guest-failed"    // run-guest did not; NeverRan if the guest certainly executed nothing
	EvLinkUp         EventKind = "link-up"         // Peer
	EvLinkLost       EventKind = "link-lost"       // Peer
	EvTick           EventKind = "tick"            // Now
	EvLearned        EventKind = "learned"         // Peer, Term, Attempt, Position, Live: a verified transfer to us reached us by another way than its giver
	EvClaim          EventKind = "claim"           // as learned; the person says that the giver will not come back with its held guest
)

// Events of this device about a history that branched.
const (
	EvTakeOver   EventKind = "take-over"  // Peer (whom it is taken from; may be this device), Term (the new one), Position (this replica's); the person said so, there is one head and the disk is within it; Mine: an owner's that goes back to Position, whose guest has ended
	EvSuperseded EventKind = "superseded" // Peer (the owner), Term of the preferred head, which is not this device's, by no consent of this one; repeated at each change of the history
	EvJudged     EventKind = "judged"     // Term (of ActJudge), Newer: something is here that the history of Term lacks, or may lack
	EvChosen     EventKind = "chosen"     // Peer (the owner), Term of a verified transfer that decides about what this device holds: it is to go on (Mine), or to be set aside; Mine is said to a replica only if its disk is still the one that was chosen
	EvSetAside   EventKind = "set-aside"  // the restore point of ActSetAside is whole and durable
)

// Events that are a peer's messages. The kind of each is that of the send
// action with "peer-" for "send-"; see [Delivered].
const (
	EvPeerAsk      EventKind = "peer-ask"      // Ask; the receiver adds Attempt (fresh, random) and Live (is the guest running?)
	EvPeerRefuse   EventKind = "peer-refuse"   // Ask, Reason
	EvPeerOffer    EventKind = "peer-offer"    // Ask, Attempt, Term (the giver's), Live
	EvPeerReady    EventKind = "peer-ready"    // Attempt
	EvPeerLoaded   EventKind = "peer-loaded"   // Attempt
	EvPeerTransfer EventKind = "peer-transfer" // Attempt, Term, Position, Live, GuestHeld
	EvPeerReturned EventKind = "peer-returned" // Attempt, Term, Position, Live
	EvPeerActive   EventKind = "peer-active"   // Term
	EvPeerAbort    EventKind = "peer-abort"    // the giver's: Ask, Attempt, Reason
	EvPeerAborted  EventKind = "peer-aborted"  // the taker's: Ask, Attempt, Reason
	EvPeerQuery    EventKind = "peer-query"    // Attempt
	EvPeerCancel   EventKind = "peer-cancel"   // Ask, Attempt; the taker's person would rather not
)

// ActionKind names an action.
type ActionKind string

// Actions on this device. Those with a State carry what must be durable: the
// bytes are stored, synced, in the same commit as the rest of the action.
const (
	ActSave             ActionKind = "save"              // State
	ActStartIncoming    ActionKind = "start-incoming"    // Attempt, Peer; hypervisor paused, disk not active; answer incoming-ready, loaded-local, local-failed
	ActStartOutgoing    ActionKind = "start-outgoing"    // Attempt, Peer, Live; send memory and disk, stop, flush, fence; answer prepared or local-failed
	ActContinueOutgoing ActionKind = "continue-outgoing" // Attempt; let the stopped guest's last state through
	ActPersistGiven     ActionKind = "persist-given"     // Peer, Term (the new one), Attempt, Position, Returned, State; sign (once!) and append the transfer; answer persisted or persist-failed
	ActPersistOwned     ActionKind = "persist-owned"     // Peer, Term, Attempt, State; append the received transfer; answer persisted or persist-failed
	ActActivateDisk     ActionKind = "activate-disk"     // Term; the disk may be written under it from here on
	ActFenceDisk        ActionKind = "fence-disk"        // Term; no write passes any more
	ActRunGuest         ActionKind = "run-guest"         // answer guest-runs or guest-failed
	ActResume           ActionKind = "resume"            // Term, Guest, Reason; end the migration, unfence the disk under Term (whatever term it was active under), let the guest, if there is one, go on if Guest; harmless if nothing was stopped
	ActKillHypervisor   ActionKind = "kill-hypervisor"   // kill it and wait until it is dead; harmless if there is none
	ActRecordAbort      ActionKind = "record-abort"      // State, Ask, Attempt, Reason; the attempt to take the VM is over
	ActBecomeReplica    ActionKind = "become-replica"    // State, Peer (the owner)
	ActReportStopped    ActionKind = "report-stopped"    // the VM is ours but its memory is lost: the disk is as after a power cut, with all that was flushed
)

// Actions about a history that branched. All of them are harmless when done again.
const (
	ActPersistTakeover ActionKind = "persist-takeover" // Peer (the old owner), Term, Position, State; sign (once!) and store the takeover; answer persisted or persist-failed
	ActPersistKept     ActionKind = "persist-kept"     // Term (the preferred head's), State; sign (once!) that this device holds something else, unless its own head says so already; answer persisted or persist-failed with this Term, whatever term speaks for it (answers with another are ignored)
	ActPauseGuest      ActionKind = "pause-guest"      // end what goes out, settle the migration, pause the guest and keep it; harmless if there is none
	ActJudge           ActionKind = "judge"            // Term (the preferred head's), Guest; compare disk, saved memory and, if Guest, the guest with its history; answer judged once that can be known; of a head that is void by now, by the one that is preferred instead
	ActSetAside        ActionKind = "set-aside"        // Term (the choice's); make a restore point of the disk, beside the loop; answer set-aside, never give up
	ActYieldDisk       ActionKind = "yield-disk"       // Term; the disk is never active under it or a lower one, from here on it may be overwritten
	ActRenewTerm       ActionKind = "renew-term"       // Term; the running disk goes on under it
)

// Actions that are messages to Peer. They are sent if there is a link and
// dropped otherwise; the machine resends what matters. Fields as in the event
// of the same name.
const (
	ActSendAsk      ActionKind = "send-ask"
	ActSendRefuse   ActionKind = "send-refuse"
	ActSendOffer    ActionKind = "send-offer"
	ActSendReady    ActionKind = "send-ready"
	ActSendLoaded   ActionKind = "send-loaded"
	ActSendTransfer ActionKind = "send-transfer" // with the signed transfer of Term
	ActSendReturned ActionKind = "send-returned" // with the signed transfer of Term
	ActSendActive   ActionKind = "send-active"
	ActSendAbort    ActionKind = "send-abort"
	ActSendAborted  ActionKind = "send-aborted"
	ActSendQuery    ActionKind = "send-query"
	ActSendCancel   ActionKind = "send-cancel"
)

// Reasons that the machine itself gives. Others come from local-failed.
const (
	ReasonBusy      = "busy"            // another hand-off of this VM is under way
	ReasonNotOwner  = "not owner"       // the asked device does not own the VM
	ReasonCancelled = "cancelled"       // by a person, on either side
	ReasonTimeout   = "timeout"         // nothing moved for too long
	ReasonLinkLost  = "link lost"       // between the two devices
	ReasonDied      = "hypervisor died" // by itself
	ReasonRestarted = "restarted"       // the engine was restarted in between
	ReasonUnknown   = "unknown attempt" // the asked device knows nothing of it (any more)
	ReasonFailed    = "failed"          // this side could not go on
	ReasonNotStored = "not stored"      // the transfer could not be written
	ReasonPeer      = "peer ended it"   // the other side gave no reason
	ReasonTakenOver = "taken over"      // the person here took the VM over instead
	ReasonOusted    = "superseded"      // another device became the owner without this one's consent
	ReasonChosen    = "chosen"          // the person decided that this device's side goes on
)

// Position is how far a replica has come.
type Position struct {
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
}

// Facts is what a restarted engine found.
type Facts struct {
	// HypervisorAlive: this VM's hypervisor process lives on this device. Of a
	// device in Given it means that the guest is still held, never having run
	// since it was stopped.
	HypervisorAlive bool
	// DiskActive: the disk's own journal lets it be written.
	DiskActive bool
	// Superseded and Owner are what EvSuperseded would say, or zero: an owner
	// that lost the VM while it was down must not begin to run it.
	Superseded uint64
	Owner      string
}

// Event is one thing that happened. Which fields count is told at its kind.
type Event struct {
	Kind     EventKind
	Now      time.Time
	Peer     string // authenticated device ID
	Ask      string // the taker's name of the attempt
	Attempt  string // the giver's name of the attempt
	Term     uint64
	Position Position
	Live     bool // the hand-off takes running memory along
	// GuestHeld: the giver still has the guest, stopped, and could run it.
	GuestHeld bool
	// NotWritten: it is certain that nothing became durable.
	NotWritten bool
	// NeverRan: the guest certainly executed nothing since it was told to.
	NeverRan bool
	Newer    bool // judged: nothing may be overwritten here
	Mine     bool // chosen: what this device holds goes on
	Reason   string
	Facts    Facts
}

// Action is one thing to do. Which fields count is told at its kind.
type Action struct {
	Kind      ActionKind
	Peer      string
	Ask       string
	Attempt   string
	Term      uint64
	Position  Position
	Live      bool
	Guest     bool
	GuestHeld bool
	Returned  bool
	Reason    string
	State     []byte // owned by the receiver
}

var delivered = map[ActionKind]EventKind{
	ActSendAsk:      EvPeerAsk,
	ActSendRefuse:   EvPeerRefuse,
	ActSendOffer:    EvPeerOffer,
	ActSendReady:    EvPeerReady,
	ActSendLoaded:   EvPeerLoaded,
	ActSendTransfer: EvPeerTransfer,
	ActSendReturned: EvPeerReturned,
	ActSendActive:   EvPeerActive,
	ActSendAbort:    EvPeerAbort,
	ActSendAborted:  EvPeerAborted,
	ActSendQuery:    EvPeerQuery,
	ActSendCancel:   EvPeerCancel,
}

// Delivered returns the event that a send action is on the device that receives
// it from the device from, and false for an action that is no message. The
// receiver of an ask adds Attempt and Live.
func Delivered(from string, a Action) (Event, bool) {
	kind, ok := delivered[a.Kind]
	if !ok {
		return Event{}, false
	}
	return Event{
		Kind:      kind,
		Peer:      from,
		Ask:       a.Ask,
		Attempt:   a.Attempt,
		Term:      a.Term,
		Position:  a.Position,
		Live:      a.Live,
		GuestHeld: a.GuestHeld,
		Reason:    a.Reason,
	}, true
}
