//go:build linux

package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/holds"
	"tagalong.org/tagalong/build/story"
)

// trial is one cell that is being tried.
type trial struct {
	*world
	cell         Cell
	giver, taker int
	run          string // names the guest's start before
	asked        string // the switch, as the taker knows it
	out          Outcome
	heals        []func(context.Context) error
}

// try carries one cell out, lets everything heal, and judges.
func (w *world) try(ctx context.Context, c Cell) (Outcome, error) {
	w.wakeUp(ctx)
	at, err := w.rest(ctx)
	if err != nil {
		return Outcome{}, fmt.Errorf("before: %w", err)
	}
	t := &trial{world: w, cell: c, giver: at, taker: 1 - at, run: w.heard(names[at]).run}
	w.say("--- %v: from %s to %s", c, names[t.giver], names[t.taker])
	err = t.befall(ctx)
	if err == nil {
		err = t.meanwhile(ctx)
	}
	for _, h := range w.holds {
		h.Disarm()
	}
	for _, heal := range t.heals {
		err = errors.Join(err, heal(ctx))
	}
	if err == nil {
		err = t.afterwards(ctx)
	}
	if err == nil {
		err = t.judge(ctx)
	}
	return t.out, err
}

// wakeUp starts the VM if the cell before has left it stopped.
func (w *world) wakeUp(ctx context.Context) {
	v, err := w.views(ctx)
	if i, ok := owner(v); err == nil && ok && v[i].State != api.VMRunning {
		w.say("starting the VM again: %v", w.fleet.PCs[i].Client.StartVM(ctx, vmName))
	}
}

func (t *trial) pc(i int) *story.PC { return t.fleet.PCs[i] }

// befall presses the button, waits until the switch stands at the cell's step, and lets it happen.
func (t *trial) befall(ctx context.Context) error {
	side, step := t.cell.Phase.step()
	var held *holds.Hold
	switch side {
	case "giver":
		held = t.holds[names[t.giver]].Arm(step)
	case "taker":
		held = t.holds[names[t.taker]].Arm(step)
	default:
		if err := t.fallBehind(ctx); err != nil {
			return err
		}
	}
	var err error
	way := api.WayChosen
	if t.cell.Phase.carried() {
		way = api.WaySuspend
	}
	if t.asked, err = t.click(ctx, t.taker, way); err != nil {
		return err
	}
	if held == nil {
		if err := t.comeToHydrate(ctx); err != nil {
			return err
		}
		return t.happen(ctx)
	}
	defer held.LetGo()
	if err := t.awaitHold(ctx, held, step); err != nil {
		return err
	}
	return t.happen(ctx)
}

// awaitHold waits until an engine stands at a step.
func (w *world) awaitHold(ctx context.Context, held *holds.Hold, step string) error {
	select {
	case <-held.Reached:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		v, _ := w.views(ctx)
		return fmt.Errorf("nobody comes to the step %s:\n%s", step, told(v))
	}
}

// happen lets the fault happen.
func (t *trial) happen(ctx context.Context) error {
	giver, taker := t.pc(t.giver), t.pc(t.taker)
	switch t.cell.Fault {
	case TakerEngine:
		return kill(ctx, taker)
	case GiverEngine:
		return kill(ctx, giver)
	case TakerQEMU:
		return killGuest(ctx, taker)
	case GiverQEMU:
		return killGuest(ctx, giver)
	case Link, Lost:
		t.heals = append(t.heals, giver.Host.Heal)
		return giver.Host.Mute(ctx)
	case TakerDisk:
		return t.fillUp(taker.Name)
	case GiverDisk:
		return t.fillUp(giver.Name)
	case Cancel:
		err := taker.Client.CancelSwitch(ctx, t.asked)
		if err != nil {
			t.say("cancelling says: %v", err)
			t.out.Meanwhile = api.AsError(err)
		}
		return nil
	}
	return fmt.Errorf("no such fault: %s", t.cell.Fault)
}

func (t *trial) fillUp(name string) error {
	t.heals = append(t.heals, func(context.Context) error { return t.freeUp(name) })
	return t.fill(name)
}

// kill ends an engine as a crash would, and waits for its successor to answer.
func kill(ctx context.Context, p *story.PC) error {
	before := p.Restarts()
	if err := p.Kill(); err != nil {
		return err
	}
	for p.Restarts() == before {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// killGuest kills the QEMU on a PC; there must be one.
func killGuest(ctx context.Context, p *story.PC) error {
	pid, err := qemuOn(ctx, p)
	if err == nil && pid == 0 {
		err = fmt.Errorf("there is no QEMU on %s", p.Name)
	}
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

// qemuOn is the QEMU that lives on a PC; 0 is none.
func qemuOn(ctx context.Context, p *story.PC) (int, error) {
	pids, err := p.Host.Processes(ctx)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err == nil && strings.HasPrefix(string(name), "qemu-system") {
			return pid, nil
		}
	}
	return 0, nil
}

// behind is how many records of 4 KiB the taker lacks at least when it hydrates.
const behind = 100

// fallBehind has the taker's engine die, and keeps the giver from feeding what it misses.
func (t *trial) fallBehind(ctx context.Context) error {
	at := t.holds[names[t.giver]]
	fed := at.Arm("feed")
	at.Arm("lend")
	if err := kill(ctx, t.pc(t.taker)); err != nil {
		return err
	}
	if err := t.awaitHold(ctx, fed, "feed"); err != nil {
		return err
	}
	e := t.heard(names[t.giver])
	_, begun := e.console.Progress()
	_, err := t.until(ctx, "the guest doesn't write", func([2]api.VM) string {
		if _, durable := e.console.Progress(); durable < begun+behind {
			return fmt.Sprintf("%d records", durable-begun)
		}
		return ""
	})
	return err
}

// comeToHydrate waits until the VM runs on the taker without all of its disk.
func (t *trial) comeToHydrate(ctx context.Context) error {
	v, err := t.until(ctx, "the taker doesn't run", func(v [2]api.VM) string {
		if s := v[t.taker].Switch; s == nil || s.ID != t.asked || !s.Phase.Ended() {
			return "the switch hasn't ended"
		}
		return ""
	})
	if err != nil {
		return err
	}
	h := v[t.taker].Hydration
	if v[t.taker].Switch.Phase != api.PhaseDone || h == nil {
		return fmt.Errorf("the taker isn't without blocks:\n%s", told(v))
	}
	t.say("the taker runs, lacking %d bytes", h.Remaining)
	return nil
}

// explained says whether a PC's view tells a person why nothing runs, and what to do.
func explained(v api.VM) *api.Error {
	for _, e := range []*api.Error{v.Problem, switchError(v)} {
		if e != nil && e.Sentence != "" && e.Next != "" {
			return e
		}
	}
	return nil
}

func switchError(v api.VM) *api.Error {
	if v.Switch == nil {
		return nil
	}
	return v.Switch.Error
}

// onward is how many records a guest has to make durable to have gone on though a disk is full.
const onward = 40

// cut says whether nothing passes the link in this trial.
func (t *trial) cut() bool { return t.cell.Fault == Link || t.cell.Fault == Lost }

// meanwhile waits, while what has befallen lasts, until the VM runs somewhere, for a while if it is a full disk that may stop it, or both PCs say
// why it doesn't. A taker that counts as lost is done without then.
func (t *trial) meanwhile(ctx context.Context) error {
	if !t.cut() && t.cell.Fault != TakerDisk && t.cell.Fault != GiverDisk {
		return nil
	}
	if t.cell.Phase.carried() {
		return t.carriedMeanwhile(ctx)
	}
	var begun uint64
	v, err := t.until(ctx, "it neither runs nor is explained meanwhile", func(v [2]api.VM) string {
		for i := range v {
			if t.cut() && t.linked(ctx, i) {
				return names[i] + " hasn't noticed"
			}
		}
		for i := range v {
			if v[i].Here && v[i].State == api.VMRunning && (v[i].Switch == nil || v[i].Switch.Phase.Ended()) {
				if t.cut() {
					return ""
				}
				return t.goesOn(i, &begun)
			}
			if v[i].Here && v[i].State == api.VMPaused && v[i].Problem != nil {
				return ""
			}
		}
		for i := range v {
			switch e := explained(v[i]); {
			case e == nil:
				return names[i] + " doesn't say why it doesn't run"
			case t.cut() && e.Remedy == api.RemedyWait:
				return names[i] + " still hopes for the other one"
			}
		}
		return ""
	})
	if i, ok := owner(v); err == nil && (!ok || v[i].State != api.VMRunning) {
		for i := range v {
			t.say("%s says meanwhile: %v", names[i], explained(v[i]))
		}
		t.out.Meanwhile = v[t.giver].Problem
		if ok {
			t.out.Meanwhile = explained(v[i])
		}
		t.out.read(t.out.Meanwhile)
	}
	if err == nil && t.cell.Fault == Lost {
		err = t.press(ctx, t.giver, t.out.Meanwhile)
	}
	return err
}

// carriedMeanwhile waits, while the link of a VM is cut that is suspended for its way, until it runs somewhere, or it is read on both PCs for what it waits.
func (t *trial) carriedMeanwhile(ctx context.Context) error {
	v, err := t.until(ctx, "it neither runs nor is explained meanwhile", func(v [2]api.VM) string {
		for i := range v {
			if t.linked(ctx, i) {
				return names[i] + " hasn't noticed"
			}
		}
		for i := range v {
			if v[i].Here && v[i].State == api.VMRunning && (v[i].Switch == nil || v[i].Switch.Phase.Ended()) {
				return ""
			}
		}
		for i := range v {
			if waits := v[i].Switch != nil && !v[i].Switch.Phase.Ended() && v[i].Switch.Why != ""; !waits && explained(v[i]) == nil {
				return names[i] + " doesn't say what it waits for"
			}
		}
		return ""
	})
	if err != nil {
		return err
	}
	if i, ok := owner(v); !ok || v[i].State != api.VMRunning {
		for i := range v {
			if s := v[i].Switch; s != nil && s.Why != "" {
				t.say("%s says meanwhile: %s", names[i], s.Why)
			}
		}
		t.out.Meanwhile = v[t.giver].Problem
		t.out.read(t.out.Meanwhile)
	}
	return nil
}

// press does what a person on a PC reads to be done, as the window's button would. What a fault's end mends, and the switch, which the next cell
// begins with, need no press.
func (t *trial) press(ctx context.Context, on int, read *api.Error) error {
	if read == nil {
		return fmt.Errorf("%s says nothing of what to do", names[on])
	}
	c := t.pc(on).Client
	var err error
	switch read.Remedy {
	case api.RemedyStart:
		err = c.StartVM(ctx, vmName)
	case api.RemedyResume:
		err = c.ResumeVM(ctx, vmName)
	case api.RemedyTake:
		var told *api.Takeover
		if told, err = c.Takeover(ctx, vmName); err == nil {
			err = c.TakeOver(ctx, api.TakeOverVM{VM: vmName, Token: told.Token})
		}
	default:
		err = fmt.Errorf("there is no button for %q", read.Remedy)
	}
	if err != nil {
		return fmt.Errorf("%s says %q, and what it says doesn't work: %w", names[on], read.Error(), err)
	}
	t.say("on %s it says %q: done (%s)", names[on], read.Error(), read.Remedy)
	return nil
}

// goesOn says that a PC's guest hasn't made so many records durable since begun, which is set at the first look; or nothing.
func (t *trial) goesOn(i int, begun *uint64) string {
	e := t.heard(names[i])
	if e == nil {
		return "no guest is heard"
	}
	_, durable := e.console.Progress()
	if *begun == 0 {
		*begun = durable
	}
	if *begun == 0 || durable < *begun+onward {
		return "the guest neither goes on nor stands still"
	}
	return ""
}

// linked says whether a PC believes that it is connected to the other one.
func (t *trial) linked(ctx context.Context, i int) bool {
	ask, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	s, err := t.pc(i).Client.Status(ask)
	return err == nil && len(s.Devices) == 1 && s.Devices[0].Connected
}

// afterwards waits until the two agree who has the VM, and presses the button where it doesn't run.
func (t *trial) afterwards(ctx context.Context) error {
	began := time.Now()
	v, err := t.until(ctx, "it isn't over", func(v [2]api.VM) string {
		i, ok := owner(v)
		switch {
		case !ok:
			return "not one owner"
		case v[i].State == api.VMSwitching || v[i].State == api.VMStarting, v[1-i].State == api.VMSwitching:
			return "it is " + string(v[i].State)
		case v[0].Switch != nil && !v[0].Switch.Phase.Ended(), v[1].Switch != nil && !v[1].Switch.Phase.Ended():
			return "its switch hasn't ended"
		case v[i].State != api.VMRunning && explained(v[i]) == nil:
			return names[i] + " doesn't say why it doesn't run"
		case v[i].State == api.VMPaused && v[i].Problem == nil:
			return "it is about to go on" // a guest that was to be given away
		}
		if v[i].State == api.VMRunning && (t.cell.Fault == TakerQEMU || t.cell.Fault == GiverQEMU) {
			if pid, err := qemuOn(ctx, t.pc(i)); err != nil || pid == 0 {
				return "nobody has noticed that its QEMU is gone"
			}
		}
		return ""
	})
	if err != nil {
		return err
	}
	i, _ := owner(v)
	t.out.Runs = "giver"
	if i == t.taker {
		t.out.Runs = "taker"
	}
	if s := v[t.taker].Switch; s != nil {
		t.out.Ended = s.Phase // perhaps as the engine recalls it that was started again
	}
	if i != t.taker {
		t.out.Afterwards = explained(v[t.taker])
	}
	if t.out.Ended == api.PhaseDone && i != t.taker {
		return fmt.Errorf("the person reads that it was done:\n%s", told(v))
	}
	if t.out.Ended != api.PhaseCancelled && i != t.taker && t.out.Afterwards == nil {
		return fmt.Errorf("the person doesn't read why it came to nothing:\n%s", told(v))
	}
	if v[i].State != api.VMRunning {
		t.out.Afterwards = explained(v[i])
		if err := t.press(ctx, i, t.out.Afterwards); err != nil {
			return err
		}
	}
	t.out.read(t.out.Afterwards)
	t.say("it was over after %.1f s, the VM is on %s", time.Since(began).Seconds(), names[i])
	return nil
}

// judge waits for the VM to be as if nothing had been, and hears the witnesses.
func (t *trial) judge(ctx context.Context) error {
	at, err := t.rest(ctx)
	if err != nil {
		return err
	}
	t.out.Kept = t.heard(names[at]).run == t.run
	if err := t.verified(ctx, at); err != nil {
		return err
	}
	return errors.Join(t.failure(), story.DoubleRuns(t.stretches()))
}

// verified lets the guest check itself, and Tagalong compare the copies.
func (w *world) verified(ctx context.Context, at int) error {
	check, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	verdict, err := w.heard(names[at]).console.Verify(check)
	if err != nil {
		return fmt.Errorf("ask the guest to check itself: %w", err)
	}
	if !verdict.OK {
		return fmt.Errorf("the guest finds itself damaged: %s", verdict.Text)
	}
	p := w.fleet.PCs[at]
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
	if err == nil && (found == nil || !found.Clean || len(found.Findings) > 0 || len(found.Copies) != 1) {
		err = fmt.Errorf("tagalong verify finds %+v", found)
	}
	return err
}
