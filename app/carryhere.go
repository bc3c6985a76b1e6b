package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/request"
)

// The taker's side of a VM that is carried (carry.go): it asks the owner for it, shows what the owner tells, and lets the VM go on when it has it.

// What a taker asks the owner.
const (
	askCarry     = "carry"         // carry the VM to who asks; true if that is under way already
	askCarryOff  = "carry-off"     // call that off
	askCarryLook = "carry-look"    // say whether it is under way
	broughtLook  = time.Second     // how often the taker looks whether it is still to get it
	broughtQuiet = 4 * time.Second // after which silence it asks
)

// bring asks the owner to carry the VM here, or returns how that stands if it is under way.
func (v *vm) bring(ctx context.Context) (*api.Switch, error) {
	if r := v.broughtRun(); r != nil {
		s := v.runNow(r)
		return &s, nil
	}
	if err := v.decided(); err != nil {
		return nil, err
	}
	owner := v.ownerID()
	if v.switching() {
		return nil, errBusy(v.name(), opSwitch)
	}
	if !v.e.awaitLink(ctx, owner) {
		return nil, v.errAway()
	}
	if _, err := v.e.facts.get(ctx, v.e.opt.Hypervisor); err != nil {
		return nil, explainProbe(err)
	}
	if err := v.e.dir.Room(); err != nil {
		return nil, errFullDisk(err)
	}
	if err := v.askOwnerTo(ctx, owner, askCarry); err != nil {
		return nil, err
	}
	s := v.runNow(v.brought(owner))
	return &s, nil
}

// askOwnerTo asks for one of the above. Asked twice, it is as if it was asked once.
func (v *vm) askOwnerTo(ctx context.Context, owner, what string) error {
	s, err := v.e.host.Open(ctx, owner, request.Protocol)
	if err != nil {
		return v.errAway()
	}
	why, err := request.Ask(ctx, s, request.Request{VM: v.id, What: what, Change: json.RawMessage(`{}`)})
	var said api.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, request.ErrOld):
		return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("Tagalong on %s is too old to suspend %s and send it here.", v.e.deviceName(owner), v.name()),
			Next: "Update it there, or suspend it, switch it, and resume it here.", Cause: err.Error()}
	case errors.Is(err, request.ErrRefused) && json.Unmarshal(why, &said) == nil && said.Sentence != "":
		return &said
	}
	return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s didn't answer.", v.e.deviceName(owner)), Next: "Try again.", Cause: err.Error()}
}

// hearRequest does what another device of the fleet asks of a VM of this one, beside a change of its record. It asks for itself.
func (v *vm) hearRequest(ctx context.Context, device, what string) error {
	c := v.carried()
	switch {
	case what == askCarry && v.owner():
		if err := v.decided(); err != nil {
			return err
		}
		_, err := v.carryTo(ctx, device)
		return err
	case what != askCarry && what != askCarryOff && what != askCarryLook:
		return &api.Error{Code: api.CodeUsage, Sentence: v.e.name + " doesn't understand what is asked for.", Next: "Use the same version of Tagalong on both devices."}
	case !v.owner():
		return v.rather(v.errNotHere())
	case c == nil || c.to != device:
		return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("The switch of %s came to nothing: %s stays on %s.", v.name(), v.name(), v.e.name),
			Next: "Try again.", Remedy: api.RemedySwitch}
	case what == askCarryOff:
		c.callOff()
	}
	return nil
}

// broughtRun is the switch of a VM that is carried here, or nil.
func (v *vm) broughtRun() *switchRun {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sw == nil || !v.sw.brought || v.sw.s.Phase.Ended() {
		return nil
	}
	return v.sw
}

func (v *vm) runNow(r *switchRun) api.Switch {
	v.mu.Lock()
	defer v.mu.Unlock()
	return r.s
}

// brought is the switch of a VM that its owner carries here, which is made known if it isn't.
func (v *vm) brought(owner string) *switchRun {
	v.bringing.Lock()
	defer v.bringing.Unlock()
	if r := v.broughtRun(); r != nil {
		return r
	}
	r, _ := v.beginKind(owner, v.e.host.ID(), kindCarried, api.PhasePreflight, nil)
	v.e.spawn(func() { v.followBrought(r) })
	return r
}

// hearCarried takes up what the owner tells of a VM that it carries here, and says whether all is said with it.
func (v *vm) hearCarried(from string, p api.Switch) (all bool) {
	if p.Kind != kindCarried || p.To != v.e.host.ID() || from != v.ownerID() {
		return false
	}
	if p.Phase.Ended() {
		if r := v.broughtRun(); r != nil && r.s.From == from && p.Phase != api.PhaseDone && p.Error != nil {
			v.endAs(r, p.Phase, p.Error)
		}
		return true
	}
	r := v.brought(from)
	v.updateRun(r, func(r *switchRun) {
		r.heard = time.Now()
		r.s.CanEnd, r.s.Why, r.s.Way = p.CanEnd, p.Why, p.Way
	})
	return false
}

// followBrought sees to it that who waits for the VM reads how it ends, whatever becomes of the owner.
func (v *vm) followBrought(r *switchRun) {
	ctx := v.e.ctx
	for {
		if err := (wallClock{}).Wait(ctx, broughtLook); err != nil {
			return
		}
		v.mu.Lock()
		s, quiet := r.s, time.Since(r.heard)
		resting := rests(v.state)
		v.mu.Unlock()
		owner := v.ownerID()
		switch {
		case s.Phase.Ended() || owner == v.e.host.ID():
			return
		case owner != s.From:
			v.endAs(r, api.PhaseFailed, explainEnd(s, baton.ReasonNotOwner))
			return
		case !resting || quiet < broughtQuiet:
		case !v.e.linked(owner):
			if s, ok := v.updateRun(r, func(r *switchRun) {
				r.s.Rate, r.s.ETA = 0, 0
				r.s.Why = fmt.Sprintf("There is no connection to %s: %s comes when there is, or can be resumed there.", r.s.FromName, r.s.VMName)
			}); ok {
				v.publishSwitch("switch.progress", s, "")
			}
		default:
			err := v.askOwnerTo(ctx, owner, askCarryLook)
			var said *api.Error
			if errors.As(err, &said) && said.Code != api.CodeUnreachable && v.ownerID() == s.From && v.restsNow() {
				v.endAs(r, api.PhaseFailed, said)
				return
			}
		}
	}
}

func (v *vm) restsNow() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return rests(v.state)
}

// callOffBrought asks the owner to let the VM go on there.
func (v *vm) callOffBrought(ctx context.Context, r *switchRun) error {
	s := v.runNow(r)
	switch {
	case v.owner():
		return errConflict(fmt.Sprintf("%s is on %s already, and about to go on.", s.VMName, s.ToName), "Switch it back when it runs.")
	case !v.restsNow():
		v.post(ctx, baton.Event{Kind: baton.EvCancel})
		return nil
	case !v.e.linked(s.From):
		return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s can't be reached, and has %s.", s.FromName, s.VMName), Next: fmt.Sprintf("Resume it there: tagalong vm resume %q", s.VMName)}
	}
	return v.askOwnerTo(ctx, s.From, askCarryOff)
}

// goesOnHere says that the saved memory is for this device, which was handed the VM by its owner.
func (v *vm) goesOnHere(s saved) bool {
	if s.header == nil || s.header.For != v.e.host.ID() {
		return false
	}
	t, ok := v.e.dir.Transfer(v.id, v.currentTerm())
	return ok && t.Kind == directory.KindSwitch && t.To == v.e.host.ID()
}

// goOnSoon lets a VM go on that was carried here, beside.
func (v *vm) goOnSoon() {
	v.mu.Lock()
	going := v.goesOn
	v.goesOn = true
	v.mu.Unlock()
	if going {
		return
	}
	v.e.spawn(func() {
		err := v.goOnCarried(v.e.ctx)
		v.mu.Lock()
		v.goesOn = false
		v.mu.Unlock()
		if v.e.ctx.Err() == nil {
			v.endCarriedHere(err)
		}
	})
}

// goOnCarried resumes it. It waits for what passes: another operation, and blocks that nobody who is connected has.
func (v *vm) goOnCarried(ctx context.Context) error {
	for {
		err := v.goOnOnce(ctx)
		if !errors.Is(err, &api.Error{Code: api.CodeUnreachable}) && !errors.Is(err, &api.Error{Code: api.CodeBusy}) {
			return err
		}
		why := api.AsError(err).Sentence
		if errors.Is(err, &api.Error{Code: api.CodeBusy}) {
			why = ""
		}
		if s, ok := v.updateRun(v.broughtRun(), func(r *switchRun) { r.s.Why = why }); ok {
			v.publishSwitch("switch.progress", s, "")
		}
		if err := (wallClock{}).Wait(ctx, carryLook); err != nil {
			return err
		}
	}
}

func (v *vm) goOnOnce(ctx context.Context) error {
	if err := v.begin(opResume); err != nil {
		return err
	}
	defer v.end(opResume)
	if !v.owner() || v.currentGuest() != nil {
		return nil
	}
	s, err := v.isSaved()
	switch {
	case err != nil:
		return err
	case s.err != nil:
		return v.errMemoryUnusable(s.err)
	case !v.goesOnHere(s):
		return nil
	}
	return v.waitFor(ctx, kindResume, func(ctx context.Context, j *job) error {
		watched := make(chan struct{})
		watch, stop := context.WithCancel(ctx)
		go func() {
			defer close(watched)
			for (wallClock{}).Wait(watch, carryLook) == nil {
				at := j.snapshot()
				if s, ok := v.updateRun(v.broughtRun(), func(r *switchRun) {
					r.s.Why = ""
					r.s.Bytes, r.s.Total, r.s.Rate, r.s.ETA = at.Bytes, at.Total, at.Rate, at.ETA
				}); ok {
					v.publishSwitch("switch.progress", s, "")
				}
			}
		}()
		defer func() {
			stop()
			<-watched
		}()
		return v.restore(ctx, j)
	})
}

// endCarriedHere ends the switch to here, if there is one: after a restart there may be none. A VM that doesn't go on says why for as long as it is
// suspended here.
func (v *vm) endCarriedHere(err error) {
	r := v.broughtRun()
	if err == nil && r != nil {
		v.switchRuns(time.Now())
		v.updateRun(r, func(r *switchRun) { r.s.Bytes, r.s.Total = r.s.Memory+r.s.Disk, r.s.Memory+r.s.Disk })
		if s, ok := v.switchDone(r, v.e.name); ok {
			v.noteSwitch(v.currentTerm(), s)
		}
	}
	if err == nil {
		return
	}
	how := ", suspended,"
	if !v.suspended() {
		how = "" // nothing is left of its memory
	}
	why := stuck(err, fmt.Sprintf("%s is on %s now%s and didn't go on:", v.name(), v.e.name, how), v.name())
	v.staysSuspended(why)
	v.endAs(r, api.PhaseFailed, why)
}

// stuck says, after said, why a VM that was carried stays suspended where it is, and what the person does about it there: mostly it is resumed when that is
// mended. It isn't where its memory can't go on there at all, as its own words say then.
func stuck(err error, said, vm string) *api.Error {
	why := *api.AsError(err)
	why.Topic = "" // it tells of more
	why.Sentence = said + " " + why.Sentence
	if why.Remedy == "" && why.Code != api.CodeConflict { // of those, who can be resumed says so
		why.Remedy = api.RemedyResume
	}
	if why.Next == "" {
		why.Next = fmt.Sprintf("Resume it: tagalong vm resume %q", vm)
	}
	return &why
}
