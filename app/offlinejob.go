package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
)

// preparation brings VMs here before the device goes offline.
type preparation struct {
	vms   []string // IDs
	job   *job
	hurry chan struct{} // closed when the person doesn't want to wait any more
	once  sync.Once

	// needs is, by VM, the most bytes that were ever missing. Only the job's goroutine uses it.
	needs map[string]int64
}

func (p *preparation) hurryUp() { p.once.Do(func() { close(p.hurry) }) }

func (p *preparation) wants(vm string) bool {
	for _, id := range p.vms {
		if id == vm {
			return true
		}
	}
	return false
}

const (
	// prepareEvery is how often a preparation looks how far it is.
	prepareEvery = 100 * time.Millisecond
	// bringAgain is how long a preparation waits before it asks an owner again that couldn't be reached, or was busy.
	bringAgain = time.Second
	// giveUpTimeout is how long a switch may take to end after a preparation cancelled it. One that can't be cancelled any more
	// ends by itself.
	giveUpTimeout = 10 * time.Second
)

// The phases of a preparation.
const (
	phaseBring = "bringing"
	phaseFetch = "completing"
	phaseTell  = "telling"
)

// prepareOffline begins to prepare; the wish is durable.
func (e *Engine) prepareOffline(wish []string, now bool) (*api.Job, error) {
	p := &preparation{vms: wish, hurry: make(chan struct{}), needs: map[string]int64{}}
	if now {
		p.hurryUp()
	}
	names := make([]string, 0, len(wish))
	for _, id := range wish {
		if r, ok := e.dir.VM(id); ok {
			names = append(names, r.Name)
		}
	}
	// The job's goroutine may be done before startJob returns.
	known := make(chan struct{})
	accepted, err := e.startJob(api.Job{Kind: kindOffline, VMName: strings.Join(names, ", ")}, func(ctx context.Context, j *job) error {
		<-known
		err := e.prepare(ctx, j, p)
		e.offline.mu.Lock()
		e.offline.prep = nil
		e.offline.mu.Unlock()
		return err
	})
	if err == nil {
		p.job = e.job(accepted.ID)
		e.offline.mu.Lock()
		e.offline.prep = p
		e.offline.mu.Unlock()
	}
	close(known)
	return accepted, err
}

// prepare is the job.
func (e *Engine) prepare(ctx context.Context, j *job, p *preparation) error {
	if err := e.bringAlong(ctx, j, p); err != nil {
		if e.ctx.Err() != nil {
			return err // the engine ends: its next start goes on with the wish
		}
		return errors.Join(err, e.keepOffline(func(k *keptOffline) { *k = keptOffline{} }))
	}
	j.enter(phaseTell)
	if err := e.begun(ctx); err != nil {
		return err
	}
	text := e.offlineText()
	j.say(text)
	e.hub.publish(api.Event{Kind: "offline.on", Text: text})
	return nil
}

// bringAlong switches every VM of the wish here and waits until nothing of them is missing. It returns nil too when the
// person is in a hurry.
func (e *Engine) bringAlong(outer context.Context, j *job, p *preparation) error {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	e.spawn(func() {
		select {
		case <-p.hurry:
			cancel()
		case <-ctx.Done():
		}
	})
	err := e.bringAll(ctx, j, p)
	if outer.Err() != nil {
		return outer.Err()
	}
	select {
	case <-p.hurry:
		return nil
	default:
		return err
	}
}

func (e *Engine) bringAll(ctx context.Context, j *job, p *preparation) error {
	for _, id := range p.vms {
		j.enter(phaseBring)
		if err := e.bring(ctx, j, p, id); err != nil {
			return err
		}
	}
	j.enter(phaseFetch)
	for e.howFar(j, p) > 0 {
		if err := pauseFor(ctx, prepareEvery); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// bring switches one VM here, however often that takes. A VM that was removed meanwhile needn't come.
func (e *Engine) bring(ctx context.Context, j *job, p *preparation, id string) error {
	for ctx.Err() == nil {
		if _, ok := e.dir.VM(id); !ok {
			return nil
		}
		v := e.vm(id)
		if v != nil && v.owner() && !v.switching() {
			return nil
		}
		e.howFar(j, p)
		err := error(&api.Error{Code: api.CodeBusy})
		if v != nil && !v.owner() {
			if _, err = v.take(ctx, wish{}); err == nil {
				err = e.awaitSwitch(ctx, j, p, v)
			}
		}
		if passes(err) {
			err = pauseFor(ctx, bringAgain)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// passes says that what stood in the way of a switch may be gone in a moment.
func passes(err error) bool {
	return errors.Is(err, &api.Error{Code: api.CodeUnreachable}) || errors.Is(err, &api.Error{Code: api.CodeBusy})
}

// awaitSwitch waits until the VM's switch to here has ended, and returns why it failed. When ctx ends, the switch is cancelled.
func (e *Engine) awaitSwitch(ctx context.Context, j *job, p *preparation, v *vm) error {
	for {
		s, ok := v.lastSwitch()
		switch {
		case !ok || s.Phase.Ended() && s.Error == nil:
			return nil
		case s.Phase.Ended():
			return s.Error
		}
		e.howFar(j, p)
		if pauseFor(ctx, prepareEvery) != nil {
			break
		}
	}
	v.post(e.ctx, baton.Event{Kind: baton.EvCancel})
	last, cancel := context.WithTimeout(e.ctx, giveUpTimeout)
	defer cancel()
	for pauseFor(last, prepareEvery) == nil {
		if s, ok := v.lastSwitch(); !ok || s.Phase.Ended() {
			break
		}
	}
	return ctx.Err()
}

// lastSwitch is the VM's switch, under way or ended.
func (v *vm) lastSwitch() (api.Switch, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sw == nil {
		return api.Switch{}, false
	}
	return v.sw.s, true
}

// howFar tells how far the preparation is, over all VMs, and returns how many bytes are left.
func (e *Engine) howFar(j *job, p *preparation) int64 {
	var total, left int64
	for _, id := range p.vms {
		r, ok := e.dir.VM(id)
		v := e.vm(id)
		if !ok || v == nil {
			continue
		}
		n := v.toBring()
		if v.owner() {
			n = *v.missing(r)
		}
		p.needs[id] = max(p.needs[id], n)
		total += p.needs[id]
		left += n
	}
	j.progressOf(total-left, total)
	return left
}

// toBring is how many bytes a switch to here has to move, as far as is known: what the switch under way says, or what the
// owner last told of this copy, and all of the memory of a VM that runs.
func (v *vm) toBring() int64 {
	r, ok := v.record()
	if !ok {
		return 0
	}
	var n int64
	runs := r.State == string(api.VMRunning) || r.State == string(api.VMPaused)
	if s, ok := v.lastSwitch(); ok && !s.Phase.Ended() && s.Total > 0 {
		n = max(s.Total-s.Bytes, 0)
		// The memory isn't counted in it before it is on its way.
		runs = s.Kind == "teleport" && (s.Phase == api.PhasePreflight || s.Phase == api.PhaseCatchUp)
	} else if missing := v.missing(r); missing != nil {
		n = *missing
	}
	if !runs {
		return n
	}
	if spec, err := specOf(r); err == nil {
		n += spec.MemoryKiB << 10
	}
	return n
}

// offlineText tells the person what they have with them, and who doesn't know.
func (e *Engine) offlineText() string {
	s := e.offlineStatus()
	var taken, parts []string
	for _, v := range s.VMs {
		if v.Taken {
			taken = append(taken, v.VMName)
		}
	}
	switch {
	case len(taken) > 0:
		parts = append(parts, "You can go: "+strings.Join(taken, ", ")+pick(len(taken), " comes along.", " come along."))
	default:
		parts = append(parts, "You can go.")
	}
	for _, v := range s.VMs {
		switch {
		case !v.Taken:
			parts = append(parts, "This device only has "+copyText(v)+", which must not be started: it is on "+v.OwnerName+".")
		case v.Missing != nil && *v.Missing > 0:
			parts = append(parts, byteText(*v.Missing)+" of "+v.VMName+" "+"aren't here.")
		}
	}
	if len(s.Unaware) > 0 {
		parts = append(parts, strings.Join(s.Unaware, ", ")+pick(len(s.Unaware), " doesn't know that you are away.", " don't know that you are away."))
	}
	if len(taken) > 0 && len(s.Unaware) < len(e.dir.Members()) {
		parts = append(parts, "As long as the others can be reached, they still get every change.")
	}
	return strings.Join(parts, " ")
}

// byteText is a count of bytes as a person reads it.
func byteText(n int64) string {
	for _, unit := range []string{"bytes", "kB", "MB", "GB"} {
		if n < 1000 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n = (n + 500) / 1000
	}
	return fmt.Sprintf("%d TB", n)
}

func pick(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// pauseFor waits, less if ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
