//go:build linux

package story

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
)

// switches moves the VM there and back, and lets the guest check itself after each move.
func (s *Story) switches(ctx context.Context) error {
	owner := s.A
	for range s.o.Switches {
		to := s.other(owner)
		if err := s.Move(ctx, owner, to); err != nil {
			return fmt.Errorf("switch from %s to %s: %w", owner.Name, to.Name, err)
		}
		owner = to
		if err := s.settle(ctx, owner); err != nil {
			return err
		}
	}
	return nil
}

// Move is one press of "Switch to this machine" on a PC.
func (s *Story) Move(ctx context.Context, from, to *PC) error {
	// The taker's copy must be live before, as it would be on a LAN on any day; a switch that
	// finds it behind waits, which would be measured here as the switch's own time.
	err := until(ctx, "a live mirror", 2*time.Minute, func(ctx context.Context) (bool, error) {
		r, err := s.replica(ctx, from)
		return err == nil && r.State == api.ReplicaLive, err
	})
	if err != nil {
		return err
	}
	// The button is there only while the other PC is.
	err = until(ctx, to.Name+" to see "+from.Name, 3*time.Minute, func(ctx context.Context) (bool, error) {
		status, err := to.Client.Status(ctx)
		return err == nil && len(status.Devices) == 1 && status.Devices[0].Connected, err
	})
	if err != nil {
		return err
	}
	s.say("Switch to this machine, pressed on %s", to.Name)
	clicked := time.Now()
	if _, err := to.Client.Switch(ctx, api.SwitchVM{VM: VMName}); err != nil {
		return err
	}
	listening := make(chan error, 1)
	go func() {
		// The line is there as soon as the taker's hypervisor is.
		_, err := s.listen(ctx, to)
		listening <- err
	}()
	p := s.progress("memory and disk to " + to.Name)
	var ended api.Switch
	err = until(ctx, "the switch", 5*time.Minute, func(ctx context.Context) (bool, error) {
		v, err := to.VM(ctx, VMName)
		if err != nil || v.Switch == nil {
			return false, err
		}
		ended = *v.Switch
		if ended.Phase == api.PhaseMemory {
			p.show(ended.Bytes, ended.Total, ended.Rate, ended.ETA)
		}
		return ended.Phase.Ended(), nil
	})
	p.end()
	if err != nil {
		return err
	}
	if ended.Phase != api.PhaseDone {
		return fmt.Errorf("it ended as %s: %w", ended.Phase, ended.Error)
	}
	if err := <-listening; err != nil {
		return err
	}
	took := time.Since(clicked)
	if !ended.Ended.IsZero() {
		took = ended.Ended.Sub(clicked)
	}
	gap, err := s.switchGap(ctx, to)
	if err != nil {
		return err
	}
	r := SwitchResult{To: to.Name, GuestPause: gap, StopToRun: ended.Pause, Took: took, Memory: ended.Memory, Disk: ended.Disk}
	s.result.Switches = append(s.result.Switches, r)
	s.say("%s runs on %s: click to running %.1f s, the guest stood still for %d ms, %s of memory and %s of disk crossed the wire",
		VMName, to.Name, r.Took.Seconds(), r.GuestPause.Milliseconds(), size(r.Memory), size(r.Disk))
	return nil
}

// switchGap waits for the first tick on the new PC and returns the pause before it.
func (s *Story) switchGap(ctx context.Context, to *PC) (time.Duration, error) {
	before := len(s.result.Switches)
	var pause time.Duration
	err := until(ctx, "the guest's first tick on "+to.Name, 3*time.Minute, func(context.Context) (bool, error) {
		gaps := s.timeline.SwitchGaps()
		if len(gaps) <= before {
			return false, nil
		}
		pause = gaps[len(gaps)-1].Pause()
		return true, nil
	})
	return pause, err
}

// settle lets the guest run a while where it is, and then check itself.
func (s *Story) settle(ctx context.Context, p *PC) error {
	c := s.consoles[p.Name]
	_, begun := c.Progress()
	err := until(ctx, "the guest to write on "+p.Name, 3*time.Minute, func(context.Context) (bool, error) {
		_, durable := c.Progress()
		return durable > begun+uint64(s.o.Rate.Fsync), nil
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.o.Settle):
	}
	return s.verify(ctx, p)
}

// verify asks the guest to check its disk, its memory and its clock.
func (s *Story) verify(ctx context.Context, p *PC) error {
	c := s.consoles[p.Name]
	check, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	v, err := c.Verify(check)
	if err != nil {
		return fmt.Errorf("ask the guest to check itself: %w\n%s", err, s.heard(c))
	}
	s.result.Records, s.result.Last, s.result.Lost, s.result.Bad = v.Records, v.Last, v.Lost, v.Bad+v.MemBad+v.FSErrors
	s.result.Ticks = v.Ticks
	if !v.OK {
		return fmt.Errorf("the guest's own check failed: %s", v.Text)
	}
	if bad := c.Bad(); len(bad) > 0 {
		return fmt.Errorf("the guest complained: %s", strings.Join(bad, "; "))
	}
	s.say("the guest checked itself on %s: %d records verified, %d lost, %d pages of memory whole", p.Name, v.Records, v.Lost, v.MemPages)
	return nil
}

// end shuts the guest down and hears the last two witnesses.
func (s *Story) end(ctx context.Context) error {
	owner, err := s.owner(ctx)
	if err != nil {
		return err
	}
	c := s.consoles[owner.Name]
	if err := s.verify(ctx, owner); err != nil {
		return err
	}
	if _, err := c.PowerOff(ctx); err != nil && !errors.Is(err, console.ErrClosed) {
		return fmt.Errorf("shut the guest down: %w", err)
	}
	err = until(ctx, "the VM to stop and both disks to be level", 2*time.Minute, func(ctx context.Context) (bool, error) {
		v, err := owner.VM(ctx, VMName)
		if err != nil || v.State != api.VMStopped || len(v.Replicas) == 0 {
			return false, err
		}
		r := v.Replicas[0]
		return r.State == api.ReplicaLive && r.Remaining == 0 && r.Position == v.Position, nil
	})
	if err != nil {
		return err
	}
	for _, p := range []*PC{s.A, s.B} {
		if n, err := p.mirrored(ctx); err == nil {
			s.result.Mirrored += n
		}
		s.result.Restarts += p.Restarts()
	}
	history, err := owner.Run(ctx, "history", VMName)
	if err != nil {
		return err
	}
	s.say("where it has been (tagalong history %s):\n%s", VMName, indent(history))
	for _, p := range []*PC{s.A, s.B} {
		if err := p.Stop(); err != nil {
			return err
		}
	}
	if s.result.Compared, err = compareDisks(s.A, s.B, s.VM); err != nil {
		return fmt.Errorf("compare the disks: %w", err)
	}
	s.result.Missing, s.result.Doubled = len(s.timeline.Missing()), len(s.timeline.Doubled())
	if s.result.Missing > 0 || s.result.Doubled > 0 {
		return fmt.Errorf("the tick log has holes: %d ticks missing, %d doubled: %v, %v; the switches were at %v",
			s.result.Missing, s.result.Doubled, s.timeline.Missing(), s.timeline.Doubled(), s.timeline.SwitchGaps())
	}
	return nil
}

// mirrored is how many bytes a PC has sent for the disk since its connections began.
func (p *PC) mirrored(ctx context.Context) (int64, error) {
	v, err := p.VM(ctx, VMName)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, r := range v.Replicas {
		n += r.Copied
	}
	return n, nil
}

func (s *Story) owner(ctx context.Context) (*PC, error) {
	for _, p := range []*PC{s.A, s.B} {
		if v, err := p.VM(ctx, VMName); err == nil && v.Here {
			return p, nil
		}
	}
	return nil, errors.New("no PC owns the VM")
}

func indent(text string) string {
	return "            " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n            ")
}
