package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/holdpoint"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/app/preflight"
	"tagalong.org/tagalong/app/savedmemory"
	"tagalong.org/tagalong/app/waychoice"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/handoff"
)

// A VM is carried to another device when it is suspended, its memory sent ahead with its disk, and handed over; then it goes on there by itself
// (carryhere.go). Here is the owner's side. It may be called off until the baton is given, and the VM goes on where it was.
//
// What is durable: a note of this device says where its VM is to go, under which term; it is written before the memory is, and dropped before the VM
// goes on here. The header of the saved memory says for which device it is: written with the memory, it comes with the disk, so that the taker knows
// it from the moment on from which it is the owner. So whichever engine ends, whenever, one that starts finds what is to be done: the VM goes on
// here (no header), is carried on (note and header), or goes on there (header). A header without a note is a suspended VM and no more.

// kindCarried is the kind of such a switch.
const kindCarried = "suspend"

// carryLook is how often it is looked how far the taker's copy is; what the taker's person sees comes with it.
const carryLook = 250 * time.Millisecond

// carryRetry is how soon a hand-over is tried again that came to nothing for a reason that passes.
const carryRetry = time.Second

// errGoesOn says that a VM that was carried goes on here: the person has resumed it.
var errGoesOn = errors.New("the VM was let go on")

// errHandOver is why a hand-over came to nothing, as a reason.
type errHandOver string

func (e errHandOver) Error() string { return "the hand-over came to nothing: " + string(e) }

// carryRun is one VM that is carried, as its owner goes about it.
type carryRun struct {
	v  *vm
	to string
	r  *switchRun
	// was says that the VM was suspended before: so it stays if nothing comes of it.
	was    bool
	cancel context.CancelFunc // calls it off
	off    atomic.Bool        // it was
	handed chan string        // 1-buffered: why a hand-over came to nothing
}

// carried is the VM's carrying under way, or nil.
func (v *vm) carried() *carryRun {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.carry
}

// carryTo begins to carry the VM to the device, or returns how that stands if it is under way. A VM that is stopped is only handed over.
func (v *vm) carryTo(ctx context.Context, device string) (*api.Switch, error) {
	if c := v.carried(); c != nil && c.to == device {
		s := c.standing()
		return &s, nil
	}
	if err := v.mayLeave(ctx, device); err != nil {
		return nil, err
	}
	if err := v.canGoOnAt(ctx, device); err != nil {
		return nil, err
	}
	if err := v.begin(opSuspend); err != nil {
		return nil, err
	}
	begun := false
	defer func() {
		if !begun {
			v.end(opSuspend)
		}
	}()
	if err := v.mine(); err != nil {
		return nil, err
	}
	guest := v.currentGuest()
	if guest == nil {
		s, err := v.isSaved()
		switch {
		case err != nil:
			return nil, err
		case s.err != nil:
			return nil, v.errMemoryUnusable(s.err)
		case s.header == nil:
			v.end(opSuspend)
			begun = true
			return v.sendTo(ctx, device, wish{})
		}
	}
	c := v.newCarry(device, guest == nil)
	if err := v.writeCarryNote(c); err != nil {
		return nil, err
	}
	s := v.startCarry(c, api.PhaseSuspend, func(ctx context.Context) error {
		defer v.end(opSuspend)
		if guest == nil {
			return c.destine()
		}
		return c.suspend(ctx, guest)
	})
	begun = true
	return &s, nil
}

// canGoOnAt says why the VM's memory couldn't go on at the device. That there isn't enough free now is no reason: it waits there until there is.
func (v *vm) canGoOnAt(ctx context.Context, device string) error {
	found, err := v.checkSwitch(v.e.host.ID(), device, func(id string) preflight.Device {
		if id == v.e.host.ID() {
			return v.e.thisDevice(ctx)
		}
		return v.e.otherDevice(id)
	})
	if err != nil {
		return err
	}
	for _, f := range found.Findings {
		if f.Stops && f.Left != preflight.WaySuspend {
			return errConflict(f.Sentence, f.Next)
		}
	}
	return nil
}

func (v *vm) newCarry(device string, was bool) *carryRun {
	return &carryRun{v: v, to: device, was: was, handed: make(chan string, 1)}
}

// startCarry makes it known and begins: first is done, then the rest. It returns the switch as it is now.
func (v *vm) startCarry(c *carryRun, phase api.SwitchPhase, first func(context.Context) error) api.Switch {
	ctx, cancel := context.WithCancel(v.e.ctx)
	c.cancel = cancel
	v.mu.Lock()
	v.carry = c
	v.mu.Unlock()
	v.wishFor(c.to, wish{way: api.WaySuspend})
	_, s := v.beginKind(v.e.host.ID(), c.to, kindCarried, phase, c)
	v.e.spawn(func() {
		defer cancel()
		err := first(ctx)
		if err == nil {
			err = c.handAll(ctx)
		}
		c.finish(err)
	})
	return s
}

// standing is the switch as it is now.
func (c *carryRun) standing() api.Switch {
	c.v.mu.Lock()
	defer c.v.mu.Unlock()
	if c.r == nil {
		return api.Switch{VM: c.v.id, To: c.to, Kind: kindCarried, Way: api.WaySuspend, Phase: api.PhaseSuspend}
	}
	return c.r.s
}

// ended says whether the switch is over: it ends well by the word of who got the VM.
func (c *carryRun) ended() bool { return c.standing().Phase.Ended() }

// callOff calls it off. Whether it was in time is seen at its end.
func (c *carryRun) callOff() {
	c.off.Store(true)
	c.cancel()
}

// suspend suspends the running guest, destined for the taker.
func (c *carryRun) suspend(ctx context.Context, guest hypervisor.Guest) error {
	return c.v.waitFor(ctx, kindSuspend, func(ctx context.Context, j *job) error {
		watched := make(chan struct{})
		watch, stop := context.WithCancel(ctx)
		go func() {
			defer close(watched)
			for {
				select {
				case <-watch.Done():
					return
				case <-time.After(carryLook):
				}
				s := j.snapshot()
				c.show(func(r *switchRun) { r.s.Bytes, r.s.Total, r.s.Rate, r.s.ETA = s.Bytes, s.Total, s.Rate, s.ETA })
			}
		}()
		defer func() {
			stop()
			<-watched
		}()
		return c.v.suspend(ctx, j, guest, c.to)
	})
}

// destine has a memory that is saved already go on at the taker.
func (c *carryRun) destine() error {
	w, _, err := c.v.memoryVolume()
	if err != nil {
		return err
	}
	s, err := c.v.isSaved()
	switch {
	case err != nil:
		return err
	case s.header == nil:
		return errGoesOn
	}
	h, err := savedmemory.Destine(w, *s.header, c.to)
	if err != nil {
		return err
	}
	c.v.setSaved(saved{looked: true, header: &h})
	return nil
}

// show changes what is told of it, here and there.
func (c *carryRun) show(change func(r *switchRun)) {
	s, ok := c.v.updateRun(c.r, change)
	if ok {
		c.v.publishSwitch("switch.progress", s, "")
		c.v.sendProgress(s)
	}
}

// handAll sends the memory and hands the VM over, again until it is there or there is no point any more.
func (c *carryRun) handAll(ctx context.Context) error {
	for {
		if err := c.send(ctx); err != nil {
			return err
		}
		reason, ok := c.handOver(ctx)
		if ok {
			return nil
		}
		if !handOverPasses(reason) || c.off.Load() {
			return errHandOver(reason)
		}
		c.v.log.Info("A hand-over came to nothing, and is tried again", "reason", reason, "device", c.to)
		if err := (wallClock{}).Wait(ctx, carryRetry); err != nil {
			return err
		}
	}
}

// handOverPasses says whether what ended a hand-over passes by itself.
func handOverPasses(reason string) bool {
	switch reason {
	case baton.ReasonBusy, baton.ReasonTimeout, baton.ReasonLinkLost, baton.ReasonRestarted, baton.ReasonUnknown, reasonNotComparedYet:
		return true
	}
	return false
}

// stands says why there is nothing to carry any more; nil if there is.
func (c *carryRun) stands() error {
	switch {
	case !c.v.owner():
		return errHandOver(baton.ReasonNotOwner)
	case c.v.currentGuest() != nil || !c.v.suspended():
		return errGoesOn
	case !c.v.e.dir.IsMember(c.to):
		return errHandOver(baton.ReasonLinkLost)
	}
	return nil
}

// handing says that it is being handed over to the taker, which may have asked for it by itself, or was a moment ago.
func (c *carryRun) handing() bool {
	c.v.mu.Lock()
	giving, owner := !rests(c.v.state) && c.v.with == c.to, c.v.ownerLocked()
	c.v.mu.Unlock()
	return giving || !owner && c.v.ownerID() == c.to
}

// send feeds the taker's copy until the VM may be handed over, or is.
func (c *carryRun) send(ctx context.Context) error {
	v := c.v
	defer v.wantFeed(c.to)()
	v.switchPhase(api.PhaseSend)
	holdpoint.At(ctx, holdpoint.Sending)
	v.mu.Lock()
	stored := int64(0)
	if h := v.saved.header; h != nil {
		stored = h.Stored
	}
	v.mu.Unlock()
	look := outgoingRun{v: v, peer: c.to}
	var since time.Time
	var base int64
	var m meter.Meter
	for {
		if reason := c.cameToNothing(); reason != "" {
			return errHandOver(reason)
		}
		err := c.stands()
		if c.handing() {
			return nil // whatever has become of it by now: handOver waits for that
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if !v.e.linked(c.to) {
			since = time.Time{}
			c.show(func(r *switchRun) {
				r.s.Rate, r.s.ETA = 0, 0
				r.s.Why = fmt.Sprintf("There is no connection to %s: %s waits, suspended, and goes on its way when there is.", r.s.ToName, r.s.VMName)
			})
		} else {
			cp, copied := look.Copy()
			if since.IsZero() {
				since, base, m = now, copied, meter.Meter{}
				v.updateRun(c.r, func(r *switchRun) {
					if r.base == 0 {
						r.base = copied
					}
				})
			}
			cp.Waited = now.Sub(since)
			c.show(func(r *switchRun) {
				r.s.Why = ""
				r.s.Bytes = max(copied-base, 0)
				r.s.Total = r.s.Bytes + cp.Remaining
				r.s.Rate = m.Update(now, r.s.Bytes)
				r.s.ETA = meter.TimeLeft(cp.Remaining, r.s.Rate)
			})
			if waychoice.HandOver(cp, stored) {
				return nil
			}
		}
		if err := (wallClock{}).Wait(ctx, carryLook); err != nil {
			return err
		}
	}
}

// cameToNothing is why a hand-over before came to nothing for good; "" if none has, or that passes.
func (c *carryRun) cameToNothing() string {
	select {
	case reason := <-c.handed:
		if !handOverPasses(reason) {
			return reason
		}
	default:
	}
	return ""
}

// handOver invites the taker to ask for the VM, and waits for what becomes of it. ok says that the taker has it; else reason says why not.
func (c *carryRun) handOver(ctx context.Context) (reason string, ok bool) {
	v := c.v
	if reason := c.cameToNothing(); reason != "" {
		return reason, false
	}
	v.mu.Lock()
	c.r.invited = time.Now()
	v.mu.Unlock()
	v.forgetCalledOff()
	v.wishFor(c.to, wish{way: api.WaySuspend})
	if !c.handing() && !v.e.tellDevice(c.to, handoff.Msg{VM: v.id, Body: handoff.Invite{Way: string(api.WaySuspend)}}) {
		v.heldOpen(c.r, baton.ReasonLinkLost)
	}
	tick := time.NewTicker(carryLook)
	defer tick.Stop()
	off := ctx.Done()
	for {
		select {
		case reason := <-c.handed:
			return reason, false
		case <-v.e.ctx.Done():
			return baton.ReasonRestarted, false
		case <-off:
			off = nil
			if r := v.invited(); r == c.r {
				v.callOff(r)
			} else {
				v.post(v.e.ctx, baton.Event{Kind: baton.EvCancel})
			}
		case <-tick.C:
			if c.ended() {
				return "", true
			}
		}
	}
}

// heldOpen keeps a switch from ending because a hand-over came to nothing: its owner decides. It is for both sides, and says whether it did.
func (v *vm) heldOpen(r *switchRun, reason string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case r == nil || r.s.Phase.Ended():
		return false
	case r.carry != nil:
		r.invited = time.Time{}
		select {
		case r.carry.handed <- reason:
		default:
		}
		return true
	case r.brought && (v.ownerID() == r.s.From || v.ownerID() == r.s.To):
		return true // it still comes; or it is this device's, and what says so is on its way to the machine
	}
	return false
}

// finish ends it, with err where nothing came of it. The VM goes on here then.
func (c *carryRun) finish(err error) {
	v := c.v
	if v.e.ctx.Err() != nil {
		return // the next engine goes on with it
	}
	v.dropCarryNote()
	v.mu.Lock()
	v.carry = nil
	c.r.carry = nil
	v.mu.Unlock()
	if err == nil {
		return
	}
	v.log.Info("The VM isn't carried any more", "device", c.to, "error", err)
	cancelled := c.off.Load() || errors.Is(err, errGoesOn) || errors.Is(err, errHandOver(baton.ReasonCancelled))
	s := c.standing()
	var why *api.Error
	var handed errHandOver
	switch {
	case cancelled:
		why = &api.Error{Code: api.CodeCancelled, Sentence: fmt.Sprintf("The switch was cancelled. %s stays on %s.", s.VMName, s.FromName)}
	case errors.As(err, &handed):
		if why = v.lastRefusal().explain(s, string(handed)); why == nil {
			why = explainEnd(s, string(handed))
		}
		why.Topic = endTopic(string(handed))
	default:
		said := *api.AsError(err) // the job's, whose words stay
		why = &said
	}
	if stands := c.goBack(); stands != nil {
		v.staysSuspended(stuck(stands, fmt.Sprintf("The switch of %s came to nothing. It is suspended here, and didn't go on:", s.VMName), s.VMName))
		told, back := *why, api.AsError(stands)
		told.Topic = "" // it tells of more
		told.Sentence += fmt.Sprintf(" It is suspended there, and didn't go on: %s", back.Sentence)
		if told.Next = back.Next; told.Next == "" {
			told.Next = fmt.Sprintf("Resume it there: tagalong vm resume %q", s.VMName)
		}
		why = &told
	}
	phase := api.PhaseFailed
	if cancelled {
		phase = api.PhaseCancelled
	}
	v.endAs(c.r, phase, why)
	v.e.saveRecordSoon()
}

// goBack lets a VM go on here that was suspended to be carried, or makes it one that is suspended and no more, if it was that.
func (c *carryRun) goBack() error {
	v := c.v
	for {
		if !v.owner() || v.currentGuest() != nil {
			return nil
		}
		if s, err := v.isSaved(); err != nil || s.header == nil {
			return err
		}
		if v.begin(opResume) == nil {
			break
		}
		if err := (wallClock{}).Wait(v.e.ctx, carryLook); err != nil {
			return err
		}
	}
	defer v.end(opResume)
	if !v.owner() || v.currentGuest() != nil {
		return nil
	}
	if c.was {
		here := carryRun{v: v}
		return here.destine()
	}
	return v.waitFor(v.e.ctx, kindResume, v.restore)
}
