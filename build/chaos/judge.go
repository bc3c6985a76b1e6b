//go:build linux

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/story"
)

// healFor is how long everything may take to be well again once nothing is wrong any more.
const healFor = 4 * time.Minute

// judge lets all heal and hears every witness.
func (w *world) judge(ctx context.Context) error {
	w.say("everything is let heal")
	if err := w.healed(ctx, true); err != nil {
		return err
	}
	if err := w.whole(ctx); err != nil {
		return err
	}
	durable, err := w.sendOff(ctx)
	if err != nil {
		return err
	}
	if err := w.compared(ctx); err != nil {
		return err
	}
	booted := make(chan error)
	for _, p := range w.fleet.PCs {
		go func() {
			boots, cancel := context.WithTimeout(ctx, healFor)
			defer cancel()
			booted <- w.fleet.BootCopy(boots, p, w.vm, durable)
		}()
	}
	for range w.fleet.PCs {
		err = errors.Join(err, <-booted)
	}
	if err := errors.Join(err, story.DoubleRuns(w.stretches())); err != nil {
		return err
	}
	for _, p := range w.fleet.PCs {
		log, err := os.ReadFile(p.Log())
		if err != nil {
			return err
		}
		// An engine ends only if it is asked or killed, or says in a sentence why it can't start.
		for _, word := range []string{"\npanic: ", "\nfatal error: ", "\nSIG", "DATA RACE"} {
			if i := bytes.Index(log, []byte(word)); i >= 0 {
				return fmt.Errorf("the engine on %s has crashed: %s", p.Name, log[i:min(len(log), i+4000)])
			}
		}
	}
	return w.failure()
}

// whole waits until all are together, of one mind, and the guest writes.
func (w *world) whole(ctx context.Context) error {
	if w.moving != nil {
		if err := w.until(ctx, healFor, func() bool { return isClosed(w.moving) }); err != nil {
			return fmt.Errorf("the last switch doesn't end: %w", err)
		}
	}
	names := make([]string, len(w.fleet.PCs))
	for i, p := range w.fleet.PCs {
		names[i] = p.Name
	}
	if err := w.until(ctx, healFor, func() bool { return w.forked == nil }); err != nil {
		return fmt.Errorf("after a takeover from %s there isn't one version again: %w", w.forked.old, err)
	}
	if err := w.fleet.AwaitConnected(ctx, names...); err != nil {
		return err
	}
	var told uint64
	err := w.until(ctx, healFor, func() bool {
		l := w.heard(w.owner)
		if l == nil {
			return false
		}
		_, durable := l.console.Progress()
		if told == 0 {
			told = durable
		}
		return durable > told && told > 0
	})
	if err != nil {
		return fmt.Errorf("the guest doesn't write again on %s: %w", w.owner, err)
	}
	return nil
}

// sendOff lets the guest check itself and shut down, and waits until all copies are level. It returns its newest record.
func (w *world) sendOff(ctx context.Context) (durable uint64, err error) {
	l := w.heard(w.owner)
	check, cancel := context.WithTimeout(ctx, healFor)
	defer cancel()
	verdict, err := l.console.Verify(check)
	if err != nil {
		return 0, fmt.Errorf("ask the guest on %s to check itself: %w", w.owner, err)
	}
	if !verdict.OK {
		return 0, fmt.Errorf("the guest on %s finds itself damaged: %s", w.owner, verdict.Text)
	}
	w.say("the guest checked itself on %s: %s", w.owner, verdict.Text)
	w.resting = true
	if durable, err = l.console.PowerOff(check); err != nil && !errors.Is(err, console.ErrClosed) {
		return 0, fmt.Errorf("shut the guest down: %w", err)
	}
	_, told := l.console.Progress()
	durable = max(durable, told)
	_, err = w.fleet.UntilVM(check, w.fleet.PC(w.owner), vmName, "stopped, and all copies level", func(v api.VM) bool {
		return v.State == api.VMStopped && len(v.Replicas) == len(w.fleet.PCs)-1 &&
			!slices.ContainsFunc(v.Replicas, func(r api.Replica) bool { return r.Remaining != 0 || r.Position != v.Position })
	})
	if err == nil {
		w.say("all copies are level, the last record is %d", durable)
	}
	return durable, err
}

// compared lets Tagalong compare the copies, and then compares them itself, the engines having ended.
func (w *world) compared(ctx context.Context) error {
	p := w.fleet.PC(w.owner)
	job, err := p.Client.VerifyVM(ctx, api.VerifyVM{VM: vmName})
	if err != nil {
		return fmt.Errorf("tagalong verify: %w", err)
	}
	var found *api.Verification
	err = w.fleet.Until(ctx, p, "tagalong verify", func(s *api.Status) (bool, error) {
		for _, j := range s.Jobs {
			if j.ID == job.ID {
				found = j.Verification
				return j.Done, nil
			}
		}
		return false, errors.New("the job has vanished")
	})
	if err != nil {
		return err
	}
	if found == nil || !found.Clean || len(found.Findings) > 0 || len(found.Copies) != len(w.fleet.PCs)-1 {
		return fmt.Errorf("tagalong verify finds %+v", found)
	}
	for _, c := range found.Copies {
		// It compares copies that are live, which those at other sites aren't.
		if c.Missing != "" && w.fleet.PC(c.DeviceName).Host.Site() == p.Host.Site() {
			return fmt.Errorf("tagalong verify leaves %s out: %+v", c.DeviceName, found)
		}
	}
	w.say("tagalong verify: %s", found.Sentence)
	names := []string{w.owner}
	for _, o := range w.fleet.PCs {
		if o != p {
			names = append(names, o.Name)
		}
	}
	n, err := w.fleet.SameDisks(ctx, vmName, names...)
	if err != nil {
		return err
	}
	w.say("the copies are the same, %d bytes each", n)
	return nil
}
