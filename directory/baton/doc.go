// Package baton is the hand-off of one VM as one pure state machine: an event
// goes in, actions come out. It has no goroutines, no clock and does no I/O;
// time reaches it by [EvTick]. The same machine is giver and taker of one VM on
// one device.
//
// # What it guarantees
//
// Whatever is lost, doubled, delayed or restarted, and wherever a crash falls
// between two actions, provided the actions are carried out in the order they
// are returned:
//
//   - a device runs the guest only under a term that it owns durably;
//   - a device that has given a term away never runs under it again by itself;
//   - no two transfers are ever signed for the same term;
//   - the guest is run from memory only where that memory belongs to the very
//     attempt that the transfer names;
//   - once the network is whole again, exactly one device owns the VM, and if
//     no hypervisor was lost, the guest runs there.
//
// # What it does not
//
// It verifies no signature: [EvPeerTransfer], [EvPeerReturned], [EvLearned] and
// [EvClaim] must come from a chain that the caller verified, and Event.Peer must
// be the authenticated sender. It takes nothing over by force, and resolves no
// fork. It is not safe for concurrent use: one goroutine owns a Machine.
//
// # The two sides
//
//	giver  Owned ──ask──▶ Offering ──prepared──▶ Sending ──peer-loaded──▶ Giving ──persisted──▶ Given ──peer-active──▶ Replica
//	         ▲               │                      │                       │                     │
//	         │◀── resume ────┴──────────────────────┴── not written ────────┘                     │
//	         └◀── Starting ◀── Taking ◀────────── peer-returned, term+2 ──────────────────────────┘
//
//	taker  Replica ──want──▶ Accepting ──loaded-local──▶ Loaded ──peer-transfer──▶ Taking ──persisted──▶ Starting ──guest-runs──▶ Owned
//	         ▲                   │                          │                        │                      │
//	         │◀── abort ─────────┴──────────────────────────┘                        │ no hypervisor left   │ never ran
//	         │                                                                       ▼                      │
//	         │                                          guest held by the giver: Giving ◀───────────────────┘
//	         └◀────────────── peer-active, term+2 ─────── Given (returned) ◀─────────┘    else: Owned, stopped
//
// A stopped VM takes the same way with no hypervisor: the taker is Loaded as
// soon as it was offered, and the giver remembers that until it has prepared.
//
// # Table
//
// What each event does in each state. "-" is ignored on purpose (late, doubled
// or meaningless there), "!" is [ErrIllegal] (the caller's mistake), "late" is
// [ErrTooLate]. Messages of a peer are never illegal but for a transfer that
// contradicts our own ownership.
//
//	event           Replica   Accepting  Loaded     Taking   Starting  Owned     Offering  Sending   Giving  Given
//	restart         the first event after Decode, illegal otherwise
//	want            ask       !          !          !        !         !         !         !         !       !
//	cancel          !         abort      ask giver  late     late      !         resume    resume    late    late
//	progress        -         re-arm     -          -        -         -         re-arm    re-arm    -       -
//	incoming-ready  -         ready      !          -        -         -         -         -         -       -
//	loaded-local    -         Loaded     !          -        -         -         -         -         -       -
//	prepared        -         -          -          -        -         -         Sending   !         -       -
//	local-failed    -         abort      abort      -        -         -         resume    resume    -       -
//	hypervisor-died -         abort*     abort*     no run   stopped   -         resume    not held  unheld  not held
//	persisted       !         !          !          Starting !         !         !         !         Given   !
//	persist-failed  !         !          !          retry    !         !         !         !         *       !
//	guest-runs      -         -          -          -        Owned     -         -         -         -       -
//	guest-failed    -         -          -          -        stopped*  -         -         -         -       -
//	link-lost       -         abort      -          -        -         -         resume    resume    -       -
//	link-up         -         -          query      -        -         -         -         -         -       resend
//	tick            -         timeout    resend     retry    -         -         timeout   timeout   retry   resend
//	learned         -         -          Taking     -        -         -         -         -         -       -
//	claim           Taking    Taking     Taking     -        -         !         !         !         -       Taking
//	peer-ask        refuse    refuse     refuse     refuse   refuse    Offering  refuse*   refuse*   refuse  refuse
//	peer-refuse     -         abort      -          -        -         -         -         -         -       -
//	peer-offer      aborted   accept     aborted*   aborted  aborted   aborted   aborted   aborted   aborted aborted
//	peer-ready      -         -          -          -        -         -         outgoing  -         -       -
//	peer-loaded     abort     abort      abort      abort    abort     abort     note      Giving    -*      resend*
//	peer-query      abort     abort      abort      abort    abort     abort     -*        -*        -*      resend*
//	peer-cancel     abort     abort      abort      abort    abort     abort     resume*   resume*   -*      resend*
//	peer-abort      -         abort      abort      -        -         -         -         -         -       -
//	peer-aborted    -         -          -          -        -         -         resume*   resume*   -       -
//	peer-transfer   Taking    Taking     Taking     -        -         !         !         !         -       Taking
//	  of a term already accepted: answered with active (or returned), ignored in Taking and Starting
//	peer-returned   like peer-transfer
//	peer-active     -         -          -          -        -         -         -         -         -       Replica
//
// Marked with a star: only for the current attempt and peer. Another attempt is
// answered with abort by whoever is asked as a giver. A doubled ask of the
// current attempt is answered with the same offer. persist-failed in Giving
// resumes if the giver knows that nothing was written, and is tried again
// otherwise. guest-failed gives the baton back if the guest never ran and the
// giver still holds it.
//
// # How to test it
//
// go test runs the golden transcripts of testdata (-update rewrites them) and
// the explorer, which lets whole fleets of machines loose on a hostile network
// with crashes between any two actions. A failing seed is printed and replayed
// with -seed; -seeds sets how many are tried.
package baton
