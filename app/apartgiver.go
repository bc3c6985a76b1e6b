package app

import (
	"context"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/switching"
	"tagalong.org/tagalong/directory/baton"
)

// A guest that went ahead of its memory (post-copy): the giver's side, from when it has given the VM away.

// servingRun lets the rest of the memory leave.
type servingRun struct {
	*switching.Server
	v     *vm
	peer  string
	guest hypervisor.Guest
	told  time.Time // Run's own
}

// serveRest sees to it that the taker gets what it lacks of the memory, if there is anything: whenever the transfer is sent, as often as it is. Only the
// loop calls it.
func (v *vm) serveRest(ctx context.Context, a baton.Action) {
	guest, ok := v.currentGuest().(hypervisor.PostCopier)
	if !ok || !a.Live || v.serving != nil || v.outgoing != nil && !v.outgoing.PostCopy {
		return
	}
	if v.outgoing == nil { // an earlier engine gave it away
		ask, cancel := context.WithTimeout(ctx, askApart)
		defer cancel()
		if p, err := guest.Apart(ask); err != nil || p.Side != hypervisor.Left {
			return
		}
	}
	r := &servingRun{v: v, peer: a.Peer, guest: guest}
	r.Server = switching.NewServer(ctx, switching.Serving{
		Attempt: a.Attempt, Guest: guest, Streams: &outgoingRun{v: v, attempt: a.Attempt, peer: a.Peer}, Host: r, Clock: wallClock{}, Log: v.log,
	}, v.outgoing)
	v.mu.Lock()
	v.serving = r
	v.mu.Unlock()
	v.e.spawn(r.Run)
}

// endServing ends that. Only the loop calls it.
func (v *vm) endServing() {
	v.mu.Lock()
	r := v.serving
	v.serving = nil
	v.mu.Unlock()
	if r != nil {
		r.End()
	}
}

// serves says that a device still needs memory that is here.
func (v *vm) serves() (device string, yes bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.serving == nil {
		return "", false
	}
	return v.serving.peer, true
}

// Rest implements switching.ServerHost.
func (r *servingRun) Rest(_ context.Context, rest switching.Rest) {
	now := time.Now()
	if now.Sub(r.told) < toldEvery {
		return
	}
	r.told = now
	s, ok := r.v.updateSwitch(func(run *switchRun) { run.s.Trailing, run.s.Memory = rest.Remaining, rest.Sent })
	if !ok { // of an earlier engine
		s = api.Switch{VM: r.v.id, From: r.v.e.host.ID(), To: r.peer, Phase: api.PhaseHandOff, Trailing: rest.Remaining, Memory: rest.Sent}
	}
	r.v.sendProgress(s)
}

// Lost implements switching.ServerHost. The taker hears of it by the next transfer, which says that this hypervisor is gone.
func (r *servingRun) Lost(ctx context.Context, _ error) {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	if err := r.guest.Kill(ctx); err != nil {
		r.v.log.Error("The hypervisor doesn't end", "error", err)
	}
}

// TeleportApart implements switching.GuestApart.
func (g givenGuest) TeleportApart(ctx context.Context) (hypervisor.OutgoingApart, error) {
	p, ok := g.Guest.(hypervisor.PostCopier)
	if !ok {
		return nil, hypervisor.ErrNoPostCopy
	}
	return p.TeleportApart(ctx)
}
