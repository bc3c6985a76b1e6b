package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
)

// A guest that went ahead of its memory (post-copy): the taker's side. The hand-off's machine knows nothing of it: to the giver the taker is silent until
// the memory is whole, and so the giver keeps its hypervisor, from which the rest comes, as it keeps one whose guest may have to come back.

// trailing is what is known of the memory that is still to come.
type trailing struct {
	from      string
	linked    bool
	remaining int64 // as the giver told last
	meter     meter.Meter
	rate      int64
}

// memoryComes is what there is to say about memory that is still to come; nil if there is none.
func (v *vm) memoryComes() *api.Trailing {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.trailing
	if t == nil {
		return nil
	}
	return &api.Trailing{
		From: t.from, FromName: v.e.deviceName(t.from), Remaining: t.remaining, Rate: t.rate,
		ETA: meter.TimeLeft(t.remaining, t.rate), Waiting: !t.linked,
	}
}

// memoryFirst refuses what needs all of the memory here.
func (v *vm) memoryFirst() error {
	t := v.memoryComes()
	if t == nil {
		return nil
	}
	return &api.Error{Code: api.CodeBusy, Sentence: fmt.Sprintf("Not all of %s's memory is on this device yet: some is still on %s.", v.name(), t.FromName),
		Next: fmt.Sprintf("Wait until it is (tagalong status shows how far it is), and don't switch %s off before.", t.FromName), Remedy: api.RemedyWait}
}

// Rest implements switching.Host.
func (r *incomingRun) Rest(_ context.Context, rest switching.Rest) {
	v := r.v
	v.mu.Lock()
	if v.trailing == nil || v.trailing.from != r.peer {
		v.trailing = &trailing{from: r.peer}
	}
	changed := v.trailing.linked != rest.Linked
	v.trailing.linked = rest.Linked
	v.mu.Unlock()
	if !changed {
		return
	}
	text := fmt.Sprintf("%s's memory still comes from %s: don't switch that off yet.", v.name(), v.e.deviceName(r.peer))
	if !rest.Linked {
		text = fmt.Sprintf("The connection to %s was lost, which has some of %s's memory: it may stand still until that is back.", v.e.deviceName(r.peer), v.name())
	}
	v.e.hub.publish(api.Event{Kind: "vm.trailing", VM: v.id, Text: text})
}

// heardRest takes over how much the giver says is still to leave.
func (v *vm) heardRest(from string, s api.Switch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.trailing; t != nil && t.from == from && s.Trailing > 0 {
		if t.remaining > 0 {
			t.rate = t.meter.Update(time.Now(), s.Memory)
		}
		t.remaining = s.Trailing
	}
}

// heardHeld takes note whether the giver still has its hypervisor: with that, the rest of the memory is gone.
func (v *vm) heardHeld(from string, held bool) {
	v.mu.Lock()
	lost := v.trailing != nil && v.trailing.from == from && !held
	guest := v.guest
	v.mu.Unlock()
	if !lost || guest == nil {
		return
	}
	v.e.spawn(func() { v.loseMemory(guest, from) })
}

// loseMemory ends a guest that lacks memory for good.
func (v *vm) loseMemory(guest hypervisor.Guest, from string) {
	v.log.Error("What is missing of the memory is lost", "device", from)
	ctx, cancel := context.WithTimeout(v.e.ctx, actionTimeout)
	defer cancel()
	if err := guest.Kill(ctx); err != nil {
		v.log.Error("The hypervisor doesn't end", "error", err)
		return
	}
	v.setProblem(errTrailingLost(v.name(), v.e.deviceName(from)))
}

// errTrailingLost is the problem of a VM that was stopped because some of its memory is lost.
func errTrailingLost(vm, from string) *api.Error {
	return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("%s had to be stopped: some of its memory was still on %s, and is lost there. What was open in it and not saved is lost, its disk is whole.", vm, from),
		Next: nextStart(vm), Remedy: api.RemedyStart, Topic: api.TopicTrailingLost, Other: from}
}

// run carries the attempt out, and tells the loop when memory that came after the guest has ended to come.
func (r *incomingRun) run(ctx context.Context, work func()) {
	work()
	if !r.wasApart.Load() {
		return
	}
	select {
	case r.v.landed <- r:
	case <-ctx.Done():
	case <-r.v.done:
	}
}

// Apart says that the giver mustn't be told yet that the VM runs here.
func (r *incomingRun) apart() bool {
	if r == nil || !r.Taker.Apart() {
		return false
	}
	r.wasApart.Store(true)
	return true
}

// landedHere ends what was different while memory was missing. Only the loop calls it.
func (v *vm) landedHere(r *incomingRun) {
	v.mu.Lock()
	v.trailing = nil
	if v.expecting == r {
		v.expecting = nil
	}
	v.mu.Unlock()
	switch guest, err := r.outcome(); {
	case guest == nil || gone(guest) || v.currentGuest() != guest:
		// Who follows the guest says so.
	case err != nil:
		v.log.Warn("The rest of the memory doesn't come", "error", err)
		v.loseMemory(guest, r.peer)
	case !r.Whole():
		// Its hypervisor is about to be gone, or this engine.
	default:
		v.log.Info("All of the memory is here")
		v.e.hub.publish(api.Event{Kind: "vm.whole", VM: v.id, Text: fmt.Sprintf("All of %s's memory is here: %s isn't needed for it any more.", v.name(), v.e.deviceName(r.peer))})
	}
	if a := v.withheld; a != nil {
		v.withheld = nil
		v.send(*a)
	}
}

func gone(g hypervisor.Guest) bool {
	select {
	case <-g.Exited():
		return true
	default:
		return false
	}
}

// withhold keeps the word for later that the VM runs here, while its memory isn't whole: the giver would end what it has of it. Only the loop calls it.
func (v *vm) withhold(a baton.Action) bool {
	if a.Kind != baton.ActSendActive || !v.incoming.apart() {
		return false
	}
	v.withheld = &a
	return true
}

// askApart is how long a hypervisor may take to say how its memory stands; one that waits for a page doesn't answer.
const askApart = 2 * time.Second

// followRest takes up where an earlier engine was: a guest that it took may lack memory. It says whether the guest's hypervisor waits for some, and answers
// nothing until it comes. Only the loop calls it.
func (v *vm) followRest(ctx context.Context, guest hypervisor.Guest, term uint64) (waits bool) {
	p, ok := guest.(hypervisor.PostCopier)
	t, known := v.e.dir.Transfer(v.id, term)
	if !ok || !known || t.To != v.e.host.ID() || t.From == "" || t.Attempt == "" {
		return false
	}
	ask, cancel := context.WithTimeout(ctx, askApart)
	defer cancel()
	a, err := p.Apart(ask)
	if err == nil && a.Side != hypervisor.Ahead || errors.Is(err, hypervisor.ErrNotRunning) {
		return false
	}
	v.log.Info("Some of the memory is missing, or may be", "device", t.From)
	r := v.newIncoming(t.Attempt, t.From)
	r.Taker = switching.NewFollower(ctx, r.taking(true))
	r.wasApart.Store(true)
	r.of(guest)
	v.expect(r)
	v.e.spawn(func() { r.run(ctx, func() { r.Taker.Follow(p) }) })
	return err != nil
}

// awaitAnswer hands a guest to the loop whose hypervisor waits for memory, when that answers.
func (v *vm) awaitAnswer(ctx context.Context, guest hypervisor.Guest) {
	for ctx.Err() == nil {
		ask, cancel := context.WithTimeout(ctx, askApart)
		_, err := guest.State(ask)
		cancel()
		switch {
		case err == nil:
			select {
			case v.answers <- guest:
			case <-ctx.Done():
			case <-v.done:
			}
			return
		case errors.Is(err, hypervisor.ErrNotRunning):
			return
		}
		_ = wallClock{}.Wait(ctx, askApart) // the loop looks at ctx
	}
}

// answered lets a guest go on, if it stands still, whose hypervisor didn't answer when this engine took it up. Only the loop calls it.
func (v *vm) answered(ctx context.Context, guest hypervisor.Guest) {
	if v.machine.State() != baton.Owned || v.currentGuest() != guest {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	v.resumeGuest(ctx, guest)
}

// endTeleport ends what an earlier engine began with a guest that is this device's: whoever was to take it has never let it go on, and can't any more.
func endTeleport(ctx context.Context, guest hypervisor.Guest) error {
	err := guest.Settle(ctx)
	if p, ok := guest.(hypervisor.PostCopier); ok && errors.Is(err, hypervisor.ErrApart) {
		return p.CallBack(ctx)
	}
	return err
}
