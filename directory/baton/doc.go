// Package baton is the custody of one VM as one pure state machine: the hand-off
// between two devices, the takeover without the owner's consent, and what a
// device does that lost the VM so. An event goes in, actions come out. It has no
// goroutines, no clock and does no I/O; time reaches it by [EvTick]. The same
// machine is giver and taker of one VM on one device.
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
//     attempt that the transfer names, or where it stood still since;
//   - two devices run the VM only where the person took over, and only until the
//     one that lost it was told;
//   - a guest and a disk that may hold what the new history lacks stay as they
//     are, paused and fenced, until the person chose;
//   - once the network is whole again, and the person has chosen where they had
//     to, exactly one device owns the VM, and if no hypervisor was lost, the
//     guest runs there.
//
// # What it does not
//
// It verifies no signature and knows no history: [EvPeerTransfer],
// [EvPeerReturned], [EvLearned], [EvClaim], [EvSuperseded] and [EvChosen] must
// come from transfers that the caller verified, and Event.Peer must be the
// authenticated sender. Whether a takeover may be asked for, what a disk is
// worth ([ActJudge]) and which choice is about this device is the caller's to
// know. It is not safe for concurrent use: one goroutine owns a Machine.
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
// # Without consent
//
//	Replica, Accepting, Loaded, Given ──take-over──▶ Taking ──persisted──▶ Owned, or Starting with the guest that Given held
//
//	Owned … Given ──superseded──▶ Ousted ──judged, nothing newer──▶ Replica
//	                                │
//	                                └─ newer ─▶ kept ──chosen mine──▶ Taking ──▶ Owned
//	                                              │
//	                                              └─── chosen other ──▶ set aside ──▶ Replica
//
// Terms of takeovers and choices skip far ahead, so they are unique among all
// branches of the history. A transfer of a lower term than the newest head that
// this device was superseded by, or superseded others with ([Machine.Over]),
// belongs to a side that lost: it is neither taken nor answered; its giver is
// told of the takeover by the history, as everybody is. So:
//
//   - superseded while it offers, sends or writes the transfer, a giver ends the
//     attempt and keeps the guest, paused. The transfer may be durable: it is not
//     sent, and its term is never used here again.
//   - superseded in Given, it keeps a guest that the taker may never have had;
//     if the taker says it is active before that was made known, it went on there.
//   - superseded while ownership is being written, a taker keeps what only it
//     holds; a loaded copy of what the giver holds ends, and so does an
//     ownership that nothing was done with.
//   - a replica may be beyond a takeover, too. It is judged before anything may
//     overwrite it, and becomes a side of its own if it is.
//   - whoever kept something judges again when the history went on: the side it
//     stood for may have ended.
//   - a choice is durable before the guest ends, and the restore point whole
//     before the disk is given up. A newer choice for this side waits for that.
//
// # Table
//
// What each event does in each state. "-" is ignored on purpose (late, doubled
// or meaningless there), "!" is [ErrIllegal] (the caller's mistake), "late" is
// [ErrTooLate]. Messages of a peer are never illegal but for a transfer that
// contradicts our own ownership.
//
//	event           Replica   Accepting  Loaded     Taking   Starting  Owned     Offering  Sending   Giving   Given     Ousted
//	restart         the first event after Decode, illegal otherwise
//	want            ask*      !          !          !        !         !         !         !         !        !         !
//	cancel          !         abort      ask giver  late     late      !         resume    resume    late     late      !
//	progress        -         re-arm     -          -        -         -         re-arm    re-arm    -        -         -
//	incoming-ready  -         ready      !          -        -         -         -         -         -        -         -
//	loaded-local    -         Loaded     !          -        -         -         -         -         -        -         -
//	prepared        -         -          -          -        -         -         Sending   !         -        -         -
//	local-failed    -         abort      abort      -        -         -         resume    resume    -        -         -
//	hypervisor-died -         abort*     abort*     no run   stopped   -         resume    not held  unheld   not held  judge*
//	persisted       !         !          !          Starting !         !         !         !         Given    !         kept*
//	persist-failed  !         !          !          retry*   !         !         !         !         *        !         retry*
//	guest-runs      -         -          -          -        Owned     -         -         -         -        -         pause
//	guest-failed    -         -          -          -        stopped*  -         -         -         -        -         -
//	link-lost       -         abort      -          -        -         -         resume    resume    -        -         -
//	link-up         -         -          query      -        -         -         -         -         -        resend    -
//	tick            -         timeout    resend     retry    -         -         timeout   timeout   retry    resend    retry
//	learned         -         -          Taking     -        -         -         -         -         -        -         -
//	claim           Taking    Taking     Taking     -        -         !         !         !         -        Taking    -
//	take-over       Taking*   Taking*    Taking*    !        !         !         !         !         !        Taking    Taking*
//	superseded      judge     judge*     judge*     Ousted*  Ousted    Ousted    Ousted    Ousted    Ousted   Ousted    judge*
//	judged          kept*     kept*      kept*      -        -         -         -         -         -        -         *
//	chosen, mine    Taking*   -          -          -        -         renew     renew     renew     -        -         Taking*
//	chosen, other   -         -          -          Ousted*  Ousted    Ousted    Ousted    Ousted    Ousted   Ousted    set aside
//	set-aside       -         -          -          -        -         -         -         -         -        -         Replica*
//	peer-ask        refuse    refuse     refuse     refuse   refuse    Offering  refuse*   refuse*   refuse   refuse    refuse
//	peer-refuse     -         abort      -          -        -         -         -         -         -        -         -
//	peer-offer      aborted   accept     aborted*   aborted  aborted   aborted   aborted   aborted   aborted  aborted   aborted
//	peer-ready      -         -          -          -        -         -         outgoing  -         -        -         -
//	peer-loaded     abort     abort      abort      abort    abort     abort     note      Giving    -*       resend*   abort
//	peer-query      abort     abort      abort      abort    abort     abort     -*        -*        -*       resend*   abort
//	peer-cancel     abort     abort      abort      abort    abort     abort     resume*   resume*   -*       resend*   abort
//	peer-abort      -         abort      abort      -        -         -         -         -         -        -         -
//	peer-aborted    -         -          -          -        -         -         resume*   resume*   -        -         -
//	peer-transfer   Taking    Taking     Taking     -        -         !         !         !         -        Taking    active*
//	  of a term already accepted: answered with active (or returned), ignored in Taking and Starting
//	  of a term below Over, or while the disk is being judged: ignored
//	peer-returned   like peer-transfer
//	peer-active     -         -          -          -        -         -         -         -         -        Replica   judge*
//
// Marked with a star: only for the current attempt and peer. Another attempt is
// answered with abort by whoever is asked as a giver. A doubled ask of the
// current attempt is answered with the same offer. persist-failed in Giving
// resumes if the giver knows that nothing was written, and is tried again
// otherwise; in Taking it is tried again, but for a takeover of which nothing
// was written: that changed nothing. guest-failed gives the baton back if the
// guest never ran and the giver still holds it.
//
// Of the rows without consent: want and take-over are illegal while the disk is
// to be judged, take-over also for a term that is not new, in Owned unless it goes
// back (mine), and in Ousted while something is being kept or set aside. superseded is ignored for a term that
// is known or older than our own; Accepting and Loaded abort unless it is the
// giver's own history; Taking becomes a replica where nothing is held; Ousted
// judges again if the term is new, or the answer is outstanding. judged, and in
// Ousted persisted and persist-failed, are ignored for another term than was
// asked about; for judged, nothing newer leaves a replica as it is and makes
// Ousted a replica, newer makes both keep what they have. chosen, other waits
// for nothing; chosen, mine waits for a restore point that is being made, and a
// replica is told so only if its disk is still what was chosen. peer-active in
// Ousted ends the guest if what was given went on there. peer-transfer in
// Ousted is answered only if it had been taken before the VM was lost.
//
// # How to test it
//
// go test runs the golden transcripts of testdata (-update rewrites them), every
// single fault of every scenario (their digests are in testdata/faults) and
// the explorer, which lets whole fleets of machines loose on a hostile network
// with crashes between any two actions, and people that take over and choose. A
// failing seed is printed and replayed with -seed; -seeds sets how many are tried.
package baton
