package app

import (
	"context"
	"errors"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/hypervisor/guestagent"
)

// The guest's clock stands still while the guest does, so it is late after a switch, and by hours after a suspended night. Its agent sets
// it, if there is one. That can't be done from outside: QEMU's clock of the PC goes on, but systems look at it only when they boot.

const (
	// clockTolerance is how far a guest's clock may be off: less isn't worth a leap.
	clockTolerance = 10 * time.Millisecond
	// agentTime is how long the agent may take to answer once, agentPatience how long it is tried: it may have to be started first.
	agentTime     = 5 * time.Second
	agentPatience = 2 * time.Minute
)

// clockRun tends the clock of one guest, from when it goes on.
type clockRun struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// guestGoesOn is called when the guest has begun to run, or runs again.
func (v *vm) guestGoesOn(g hypervisor.Guest) {
	v.mu.Lock()
	old, closed := v.clock, v.closed
	if closed {
		v.mu.Unlock()
		return
	}
	ctx, cancel := context.WithTimeout(v.e.ctx, agentPatience)
	run := &clockRun{cancel: cancel, done: make(chan struct{})}
	v.clock = run
	v.mu.Unlock()
	v.e.spawn(func() {
		defer close(run.done)
		defer cancel()
		if old != nil {
			old.cancel()
			<-old.done // its agent takes one at a time
		}
		v.tendClock(ctx, g)
	})
}

// tendClock finds out whether the guest's agent answers, and sets the clock by it. A guest that has just been started needs it too: the
// clock of a PC, from which it has the time, counts whole seconds.
func (v *vm) tendClock(ctx context.Context, g hypervisor.Guest) {
	socket := g.Agent()
	if socket == "" {
		v.noteAgent(g, "")
		return
	}
	answers := false
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := v.setClock(ctx, socket)
		switch {
		case err == nil:
			v.noteAgent(g, api.AgentAnswers)
			return
		case errors.Is(err, guestagent.ErrOff) || answers && errors.Is(err, guestagent.ErrRefused):
			// A guest that has much to do, after a switch or when it starts, is as late each time. It has less to do later.
			answers = true
			v.noteAgent(g, api.AgentAnswers)
		case errors.Is(err, guestagent.ErrRefused):
			v.log.Warn("The guest's agent doesn't set its clock", "error", err)
			v.noteAgent(g, api.AgentRefuses)
			return
		}
		select {
		case <-g.Exited():
			return
		case <-ctx.Done():
			switch {
			case v.e.ctx.Err() != nil || !errors.Is(ctx.Err(), context.DeadlineExceeded):
			case answers:
				v.log.Warn("The guest's clock was set, and is still off", "error", err)
			default:
				v.log.Info("No agent answers in the guest", "error", err)
				v.noteAgent(g, api.AgentSilent)
			}
			return
		case <-time.After(pause):
		}
	}
}

func (v *vm) setClock(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, agentTime)
	defer cancel()
	c, err := guestagent.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer c.Close()
	before, after, err := c.SetClock(ctx, clockTolerance)
	if err == nil && before != after {
		v.log.Info("The guest's clock was set", "was_off", before.Off, "is_off", after.Off, "within", after.Within)
	}
	return err
}

// noteAgent keeps what is known of the guest's agent.
func (v *vm) noteAgent(g hypervisor.Guest, is api.AgentState) {
	v.mu.Lock()
	changed := v.guest == g && v.agent != is
	if changed {
		v.agent = is
	}
	v.mu.Unlock()
	if changed {
		v.e.hub.publish(api.Event{Kind: "vm.changed", VM: v.id})
	}
}
