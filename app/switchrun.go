package app

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
)

// switchRun is what is told of one switch, on either side of it.
type switchRun struct {
	s       api.Switch
	meter   meter.Meter
	base    int64     // disk bytes that were copied before it began
	stopped time.Time // when the guest was stopped, by this device's clock
	stood   time.Duration
	told    time.Time
	retries int

	// carry is set where the VM is carried from here; its hand-over hasn't begun before invited. brought says that it is carried to here, and heard is
	// when the owner last said so.
	carry   *carryRun
	invited time.Time
	brought bool
	heard   time.Time
}

// toldEvery is how often the progress of a switch or job is published.
const toldEvery = 200 * time.Millisecond

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the program instead
	return hex.EncodeToString(b[:])
}

// beginSwitch makes the VM's switch known. It replaces one that has ended. It returns it also as it is now.
func (v *vm) beginSwitch(from, to string, live bool) (*switchRun, api.Switch) {
	kind := "baton"
	if live {
		kind = "teleport"
	}
	return v.beginKind(from, to, kind, api.PhasePreflight, nil)
}

// beginKind is beginSwitch of a kind, at a phase. carry is not nil where the VM is carried from here.
func (v *vm) beginKind(from, to, kind string, phase api.SwitchPhase, carry *carryRun) (*switchRun, api.Switch) {
	way := v.wished(to).way
	if kind == kindCarried {
		way = api.WaySuspend
	}
	r := &switchRun{carry: carry, brought: kind == kindCarried && carry == nil, heard: time.Now(), s: api.Switch{
		ID: newID(), VM: v.id, VMName: v.name(), From: from, FromName: v.e.deviceName(from), To: to, ToName: v.e.deviceName(to),
		Kind: kind, Way: way, Phase: phase, Started: time.Now(), CanEnd: true,
	}}
	v.mu.Lock()
	v.sw = r
	if carry != nil {
		carry.r = r
	}
	s := r.s
	v.mu.Unlock()
	v.publishSwitch("switch.begun", s, fmt.Sprintf("%s: switching from %s to %s.", s.VMName, s.FromName, s.ToName))
	return r, s
}

func (v *vm) currentSwitch() *switchRun {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sw
}

func (v *vm) publishSwitch(kind string, s api.Switch, text string) {
	v.e.hub.publish(api.Event{Kind: kind, VM: v.id, Text: text, Switch: &s})
}

// updateSwitch changes the switch under way; nothing happens without one. It returns the new state.
func (v *vm) updateSwitch(change func(r *switchRun)) (api.Switch, bool) {
	return v.updateRun(v.currentSwitch(), change)
}

func (v *vm) updateRun(r *switchRun, change func(r *switchRun)) (api.Switch, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r == nil || r.s.Phase.Ended() {
		return api.Switch{}, false
	}
	change(r)
	return r.s, true
}

func (v *vm) switchPhase(phase api.SwitchPhase) {
	s, ok := v.updateSwitch(func(r *switchRun) {
		r.s.Phase = phase
		if phase == api.PhaseHandOff {
			r.s.ETA = 0
		}
	})
	if ok {
		v.publishSwitch("switch.phase", s, fmt.Sprintf("%s: %s.", s.VMName, phaseText(phase)))
		v.sendProgress(s)
	}
}

func phaseText(p api.SwitchPhase) string {
	switch p {
	case api.PhaseCatchUp:
		return "bringing the disk's copy up to date"
	case api.PhaseMemory:
		return "memory is on its way, the VM goes on"
	case api.PhaseHandOff:
		return "handing over"
	case api.PhaseSuspend:
		return "its memory is being saved"
	case api.PhaseSend:
		return "it is suspended, its memory is on its way"
	case api.PhaseResume:
		return "its memory is being loaded"
	default:
		return string(p)
	}
}

// switchReport tells how much has moved: memory, disk (since the connection began), what remains, and what is done where that doesn't
// get less.
func (v *vm) switchReport(report switching.Report) {
	now := time.Now()
	publish, stepped := false, false
	s, ok := v.updateSwitch(func(r *switchRun) {
		if r.base == 0 {
			r.base = report.Disk
		}
		r.s.Memory, r.s.Disk = report.Memory, report.Disk-r.base
		r.s.Bytes = r.s.Memory + r.s.Disk
		r.s.Total = r.s.Bytes + report.Remaining
		r.s.Rate = r.meter.Update(now, r.s.Bytes)
		r.s.ETA = meter.TimeLeft(report.Remaining, r.s.Rate)
		stepped = stepUp(r, report)
		v.noteTripLocked(r.s)
		publish = stepped || now.Sub(r.told) >= toldEvery
		if publish {
			r.told = now
		}
	})
	switch {
	case !ok || !publish:
		return
	case stepped:
		v.publishSwitch("switch.step", s, s.Why)
	default:
		v.publishSwitch("switch.progress", s, "")
	}
	v.sendProgress(s)
}

// switchTotals sets the final counts on the giver's side.
func (v *vm) switchTotals(memory, disk int64) {
	v.updateSwitch(func(r *switchRun) {
		r.s.Memory = memory
		r.s.Disk = max(disk-r.base, 0)
		r.s.Bytes = r.s.Memory + r.s.Disk
		r.s.Total = r.s.Bytes
	})
}

// switchStopped notes when the guest was stopped, on the giver's side.
func (v *vm) switchStopped(at time.Time) {
	v.updateSwitch(func(r *switchRun) { r.stopped = at })
}

// switchStood is how long the guest has stood still so far, on the giver's side.
func (v *vm) switchStood() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sw == nil || v.sw.stopped.IsZero() {
		return 0
	}
	return time.Since(v.sw.stopped)
}

// switchTransfer notes, on the taker's side, how long the guest had stood when the transfer was sent.
func (v *vm) switchTransfer(stood time.Duration) {
	v.updateSwitch(func(r *switchRun) {
		r.stood = stood
		r.stopped = time.Now()
		r.s.CanEnd = false
	})
}

// switchRuns notes, on the taker's side, that the guest goes on.
func (v *vm) switchRuns(at time.Time) {
	v.updateSwitch(func(r *switchRun) {
		if !r.stopped.IsZero() {
			r.s.Pause = r.stood + at.Sub(r.stopped)
		}
	})
}

// switchRemote takes over what the giver tells of the progress.
func (v *vm) switchRemote(from string, p api.Switch) {
	if p.From != from || v.hearCarried(from, p) || p.Phase.Ended() {
		return // how it ends the hand-off itself says
	}
	stepped := false
	s, ok := v.updateSwitch(func(r *switchRun) {
		if r.s.From != from {
			return
		}
		r.s.Phase, r.s.Kind, r.s.Way = p.Phase, p.Kind, p.Way
		r.s.Bytes, r.s.Total, r.s.Memory, r.s.Disk, r.s.Rate, r.s.ETA = p.Bytes, p.Total, p.Memory, p.Disk, p.Rate, p.ETA
		stepped = stepUpRemote(r, p)
		v.noteTripLocked(r.s)
	})
	switch {
	case !ok:
	case stepped:
		v.publishSwitch("switch.step", s, s.Why)
	default:
		v.publishSwitch("switch.progress", s, "")
	}
}

// switchDone ends switch r well, if it is under way. by is the name of the device that has the VM now.
func (v *vm) switchDone(r *switchRun, by string) (api.Switch, bool) {
	s, ok := v.updateRun(r, func(r *switchRun) {
		if r.s.Pause == 0 && !r.stopped.IsZero() {
			r.s.Pause = time.Since(r.stopped)
		}
		r.s.Phase, r.s.Ended, r.s.ETA, r.s.CanEnd = api.PhaseDone, time.Now(), 0, false
	})
	if ok {
		v.publishSwitch("switch.done", s, fmt.Sprintf("%s is on %s now.", s.VMName, by))
		v.endAsked(s.ID)
	}
	return s, ok
}

// endSwitch ends switch r without a move.
func (v *vm) endSwitch(r *switchRun, reason string) {
	if v.heldOpen(r, reason) {
		return
	}
	refused := v.lastRefusal()
	offers := v.otherWays(r, reason)
	s, ok := v.updateRun(r, func(r *switchRun) {
		r.s.Offers = offers
		r.s.Phase, r.s.Ended, r.s.ETA, r.s.CanEnd = api.PhaseFailed, time.Now(), 0, false
		if r.s.Error = refused.explain(r.s, reason); r.s.Error != nil {
			r.s.Error.Topic = endTopic(reason)
		} else {
			r.s.Error = explainEnd(r.s, reason)
		}
		if reason == reasonTooBusy {
			r.s.OfferPause = offeredPause(r.s)
		}
		if reason == baton.ReasonCancelled {
			r.s.Phase = api.PhaseCancelled
		}
	})
	if ok {
		v.publishSwitch("switch."+string(s.Phase), s, s.Error.Error())
		v.endAsked(s.ID)
	}
}

// endAs ends switch r without a move, with that error.
func (v *vm) endAs(r *switchRun, phase api.SwitchPhase, why *api.Error) {
	s, ok := v.updateRun(r, func(r *switchRun) {
		r.s.Phase, r.s.Ended, r.s.ETA, r.s.CanEnd, r.s.Error = phase, time.Now(), 0, false, why
	})
	if ok {
		v.publishSwitch("switch."+string(s.Phase), s, s.Error.Error())
		v.sendProgress(s)
	}
}

// explainEnd says why a switch came to nothing, and whether the button is to be pressed again. The VM goes on where it was in every case.
func explainEnd(s api.Switch, reason string) *api.Error {
	e := whyEnded(s, reason)
	e.Topic = endTopic(reason)
	switch reason {
	case baton.ReasonCancelled, baton.ReasonNotOwner, baton.ReasonOusted, reasonSuspended, reasonLeaving, reasonNotReady, reasonConflict, reasonSeesPoint,
		reasonNoHypervisor, reasonAccel, reasonTooBusy:
	default:
		if !strings.HasPrefix(reason, reasonPreflight) {
			e.Remedy = api.RemedySwitch
		}
	}
	return e
}

func whyEnded(s api.Switch, reason string) *api.Error {
	stays := fmt.Sprintf("%s stays on %s.", s.VMName, s.FromName)
	switch reason {
	case baton.ReasonCancelled:
		return &api.Error{Code: api.CodeCancelled, Sentence: "The switch was cancelled. " + stays}
	case baton.ReasonBusy:
		return &api.Error{Code: api.CodeBusy, Sentence: "Another hand-off of " + s.VMName + " is under way. " + stays, Next: "Try again when it is done."}
	case baton.ReasonNotOwner:
		return &api.Error{Code: api.CodeConflict, Sentence: s.FromName + " doesn't have " + s.VMName + " any more.", Next: "See where it is with: tagalong vm list"}
	case baton.ReasonTimeout:
		return &api.Error{Code: api.CodeUnreachable, Sentence: "Nothing moved for too long. " + stays, Next: "Check the connection between the two devices and try again."}
	case baton.ReasonLinkLost:
		return &api.Error{Code: api.CodeUnreachable, Sentence: "The connection was lost. " + stays, Next: "Try again when both devices see each other (tagalong devices)."}
	case baton.ReasonDied:
		return &api.Error{Code: api.CodeInternal, Sentence: "The hypervisor ended in the middle of the switch. " + stays, Next: "Try again; the engine's log has its last words."}
	case baton.ReasonRestarted:
		return &api.Error{Code: api.CodeInternal, Sentence: "Tagalong was restarted in the middle of the switch. " + stays, Next: "Try again."}
	case reasonSuspended:
		return &api.Error{Code: api.CodeConflict, Sentence: s.VMName + " was suspended on " + s.FromName + " by an earlier version of Tagalong, and such a memory can't come along.", Next: "Resume it there first."}
	case reasonNotWhole:
		return &api.Error{Code: api.CodeBusy, Sentence: "Not all of " + s.VMName + " is on " + s.FromName + " yet. " + stays,
			Next: "Wait until it is (tagalong status there shows how far it is), and try again."}
	case reasonLeaving:
		return &api.Error{Code: api.CodeConflict, Sentence: s.FromName + " is getting ready to take " + s.VMName + " along.", Next: "Cancel that there first: tagalong offline off"}
	case reasonNotReady:
		return &api.Error{Code: api.CodeConflict, Sentence: s.VMName + " can't be moved just now: it neither runs nor is it stopped.", Next: fmt.Sprintf("See what it needs with: tagalong vm show %q", s.VMName)}
	case reasonConflict:
		return errTwoVersions(s.VMName)
	case reasonSeesPoint:
		return &api.Error{Code: api.CodeConflict, Sentence: s.VMName + " sees a restore point as a disk on " + s.FromName + ", and that can't come along.",
			Next: fmt.Sprintf("Take it away there first: tagalong restore-points %q shows it, tagalong restore-points close ID takes it away.", s.VMName)}
	case reasonTooBusy:
		return errTooBusy(s)
	case reasonNoPostCopy:
		return &api.Error{Code: api.CodeConflict, Sentence: noPostCopy(s.ToName) + " " + stays, Next: nextNoPostCopy}
	case baton.ReasonOusted:
		return &api.Error{Code: api.CodeConflict, Sentence: s.VMName + " was taken over by another device.", Next: "See where it is with: tagalong vm list"}
	case reasonNotComparedYet:
		return &api.Error{Code: api.CodeBusy, Sentence: "It isn't clear yet whether " + s.ToName + " has something of " + s.VMName + " that " + s.FromName + " lacks. " + stays,
			Next: "Try again in a moment."}
	case reasonCameBack:
		return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("%s couldn't go on with %s, which is on %s again.", s.ToName, s.VMName, s.FromName),
			Next: "Try again; the log of Tagalong on " + s.ToName + " has the cause."}
	case baton.ReasonNotStored:
		return &api.Error{Code: api.CodeSpace, Sentence: s.FromName + " couldn't write down that it hands " + s.VMName + " over. " + stays,
			Next: "Check that its disk isn't full, and try again."}
	case reasonNoRoom:
		return &api.Error{Code: api.CodeSpace, Sentence: "The disk of " + s.ToName + " is full. " + stays, Next: "Free some space there and try again."}
	case reasonMemory:
		return &api.Error{Code: api.CodeConflict, Sentence: "There isn't enough free memory on " + s.ToName + ". " + stays, Next: "Close something there and try again."}
	case reasonNoHypervisor:
		return &api.Error{Code: api.CodeNoHypervisor, Sentence: "There is no usable QEMU on " + s.ToName + ". " + stays, Next: "Install QEMU 7.2 or later there and try again."}
	case reasonAccel:
		return &api.Error{Code: api.CodeConflict, Sentence: "One of the two devices emulates in software and the other doesn't, so running memory can't move. " + stays,
			Next: fmt.Sprintf("Shut it down there (tagalong vm stop %q), switch it, and start it on %s.", s.VMName, s.ToName)}
	default:
		if strings.HasPrefix(reason, reasonPreflight) {
			return errUnfit(s, stays, reason)
		}
		return &api.Error{Code: api.CodeInternal, Sentence: "The switch failed. " + stays, Next: "Try again; the engine's log has the cause.", Cause: reason}
	}
}

// Reasons of this package, beside the machine's.
const (
	reasonSuspended = "suspended"
	reasonNotWhole  = "not whole yet"
	reasonLeaving   = "getting ready to work offline"
	reasonNotReady  = "neither running nor stopped"
	reasonMemory    = "not enough memory"
	reasonNoRoom    = "no room"
	reasonCameBack  = "came back"
	reasonConflict  = "two versions"
	reasonSeesPoint = "sees a restore point"
	// A copy that was not compared with the history can't be gone on with.
	reasonNotComparedYet = "not compared yet"
	// A memory image of one accelerator may not run under the other.
	reasonAccel        = "another accelerator"
	reasonNoHypervisor = "no hypervisor"
	// The guest writes memory faster than the connection carries it, and nothing helped.
	reasonTooBusy = "too busy"
	// The taker's system can't let a guest go ahead of its memory.
	reasonNoPostCopy = "no post-copy"
)

// maxRetries is how often an attempt begins anew that ended for no fault of either side.
const maxRetries = 3

// endIncoming ends the switch on the taker's side, or asks once more.
func (v *vm) endIncoming(reason string) {
	if reason == reasonConverged {
		again := false
		v.updateRun(v.under, func(r *switchRun) {
			r.retries++
			again = r.retries <= maxRetries
		})
		if again {
			owner := v.ownerID()
			v.e.spawn(func() {
				v.post(v.e.ctx, baton.Event{Kind: baton.EvWant, Peer: owner, Ask: newID()})
			})
			return
		}
	}
	v.endUnder(reason)
}
