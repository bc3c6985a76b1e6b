//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/story"
)

const (
	// askFor bounds one question to an engine; it may be dead.
	askFor = 3 * time.Second
	// moveFor is how long the person lets a switch take before calling it off.
	moveFor = 60 * time.Second
	// takeFor is how long the person waits for the owner to be gone, to take over.
	takeFor = 60 * time.Second
)

// target is the PC that a step is about.
func (w *world) target(s Step) *story.PC {
	if s.PC == Owner {
		return w.fleet.PC(w.owner)
	}
	return w.fleet.PCs[s.PC]
}

// do lets one step happen. What can't happen now doesn't; an error is for what must be possible at all times.
func (w *world) do(ctx context.Context, s Step) error {
	p := w.target(s)
	switch s.Kind {
	case KillEngine:
		if w.asleep[p.Name] {
			return nil
		}
		w.say("%v: kill -9 of the engine on %s", s, p.Name)
		return killed(p)
	case Restart:
		if w.asleep[p.Name] {
			return nil
		}
		w.say("%v: the engine on %s ends and starts", s, p.Name)
		if err := p.Stop(); err != nil {
			return err
		}
		return p.Start(ctx)
	case KillGuest:
		return w.killGuest(ctx, s)
	case Switch:
		w.move(ctx, s, p)
	case TakeOver:
		return w.takeOver(ctx, s, p)
	case Look:
		if w.asleep[p.Name] {
			return nil
		}
		w.say("%v: what %s has now", s, p.Name)
		return w.look(ctx, p)
	default:
		return w.wound(ctx, s, p)
	}
	return nil
}

// killed kills a PC's engine; one that has just ended by itself, as without room on its disk, needs no more.
func killed(p *story.PC) error {
	if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// killGuest kills the hypervisor on the PC that has the VM.
func (w *world) killGuest(ctx context.Context, s Step) error {
	p := w.fleet.PC(w.owner)
	pids, err := p.Host.Processes(ctx)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
		if err != nil || !strings.HasPrefix(string(name), "qemu-system") {
			continue
		}
		w.say("%v: kill -9 of the hypervisor on %s", s, p.Name)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// wound hurts a PC or the link, and arranges for its healing.
func (w *world) wound(ctx context.Context, s Step, p *story.PC) error {
	host, name := p.Host, p.Name
	var hurt, undo func(context.Context) error
	switch s.Kind {
	case Provider:
		name = "the provider"
		link := w.fleet.Lab.Link("home", "office")
		hurt = func(context.Context) error { link.Cut(); return nil }
		undo = func(context.Context) error { link.Heal(); return nil }
	case Cable, Mute, Lid:
		if w.unreachable[name] != "" {
			return nil
		}
		hurt, undo = map[Kind]func(context.Context) error{Cable: host.Cut, Mute: host.Mute, Lid: host.Sleep}[s.Kind], w.back(s.Kind, p)
		w.unreachable[name], w.asleep[name] = s.Kind, s.Kind == Lid
	case Low, Full:
		left := int64(reserve / 2)
		if s.Kind == Full {
			left = 0
		}
		if w.tight(name) {
			return nil
		}
		hurt = func(context.Context) error { return w.fill(name, left) }
		undo = func(context.Context) error { return w.freeUp(name) }
	}
	w.say("%v: %s, %s", s, s.Kind, name)
	w.heals = append(w.heals, heal{due: time.Now().Add(s.For), what: fmt.Sprintf("%s of %s", s.Kind, name), do: undo})
	return hurt(ctx)
}

// back undoes a wound that made a PC unreachable.
func (w *world) back(kind Kind, p *story.PC) func(context.Context) error {
	return func(ctx context.Context) error {
		delete(w.unreachable, p.Name)
		delete(w.asleep, p.Name)
		if kind == Lid {
			return p.Host.Wake(ctx)
		}
		return p.Host.Heal(ctx)
	}
}

// healed undoes the wounds that are due, or all.
func (w *world) healed(ctx context.Context, all bool) error {
	var later []heal
	var errs []error
	for _, h := range w.heals {
		if !all && time.Now().Before(h.due) {
			later = append(later, h)
			continue
		}
		w.say("healed: %s", h.what)
		errs = append(errs, h.do(ctx))
	}
	w.heals = later
	return errors.Join(errs...)
}

// move presses the button on a PC, unless an earlier switch is under way, and calls the switch off if it takes too long.
func (w *world) move(ctx context.Context, s Step, to *story.PC) {
	select {
	case <-w.moving:
	default:
		if w.moving != nil {
			return
		}
	}
	if w.asleep[to.Name] || to.Name == w.owner {
		return
	}
	w.say("%v: Switch to this machine, pressed on %s", s, to.Name)
	over := make(chan struct{})
	w.moving = over
	w.listening.Go(func() {
		defer close(over)
		w.say("the switch to %s: %s", to.Name, w.moved(ctx, to))
	})
}

// moved says how a switch ended.
func (w *world) moved(ctx context.Context, to *story.PC) string {
	ask, cancel := context.WithTimeout(ctx, 20*time.Second)
	begun, err := to.Client.Switch(ask, api.SwitchVM{VM: vmName})
	cancel()
	if err != nil {
		return "refused: " + err.Error()
	}
	phase := begun.Phase
	ask, cancel = context.WithTimeout(ctx, moveFor)
	defer cancel()
	for called := false; ; {
		v, err := w.ask(ctx, to)
		if err == nil && (v.Switch == nil || v.Switch.ID != begun.ID) {
			return fmt.Sprintf("forgotten in phase %s (its engine was killed); owner is %s", phase, v.OwnerName)
		}
		if err == nil {
			if phase = v.Switch.Phase; phase.Ended() {
				if v.Switch.Error != nil {
					return fmt.Sprintf("%s: %s (%s)", phase, v.Switch.Error.Sentence, v.Switch.Error.Cause)
				}
				return string(phase)
			}
		}
		select {
		case <-ctx.Done():
			return "the run has ended in phase " + string(phase)
		case <-ask.Done():
			if !called {
				called = true
				w.say("the switch to %s is called off, in phase %s", to.Name, phase)
				_ = w.tell(ctx, func(ctx context.Context) error { return to.Client.CancelSwitch(ctx, begun.ID) })
			}
			time.Sleep(time.Second)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ask is a PC's view of the VM.
func (w *world) ask(ctx context.Context, p *story.PC) (api.VM, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return p.VM(ctx, vmName)
}

// tell does something that may take a while, but not forever.
func (w *world) tell(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*askFor)
	defer cancel()
	return f(ctx)
}

// takeOver makes the owner unreachable and lets somebody take the VM over on a PC.
func (w *world) takeOver(ctx context.Context, s Step, by *story.PC) error {
	if w.forked != nil {
		return nil
	}
	for _, p := range w.fleet.PCs {
		if by.Name == w.owner || w.unreachable[by.Name] != "" {
			by = p
		}
	}
	if by.Name == w.owner || w.unreachable[by.Name] != "" {
		return nil
	}
	if w.moving != nil {
		if err := w.until(ctx, moveFor+30*time.Second, func() bool { return isClosed(w.moving) }); err != nil {
			return fmt.Errorf("the switch before a takeover: %w", err)
		}
	}
	old := w.fleet.PC(w.owner)
	if old == by {
		return nil
	}
	kind := []Kind{Cable, Mute, Lid}[s.Coin%3]
	rest := time.Duration(5+s.Coin/3%10) * time.Second
	if err := w.wound(ctx, Step{At: s.At, Kind: kind, For: takeFor + rest}, old); err != nil {
		return err
	}
	var told *api.Takeover
	deadline := time.Now().Add(takeFor)
	for {
		if err := w.wait(ctx); err != nil {
			return err
		}
		if told = w.tryTakeOver(ctx, by); told != nil {
			break
		}
		if time.Now().After(deadline) || w.owner != old.Name || w.unreachable[by.Name] != "" {
			w.say("%s can't take over", by.Name)
			return nil
		}
	}
	w.taken(old.Name, by.Name, told)
	for i, h := range w.heals {
		if h.what == fmt.Sprintf("%s of %s", kind, old.Name) {
			w.heals[i].due = time.Now().Add(rest)
		}
	}
	return nil
}

// tryTakeOver takes the VM over if the owner seems gone, and returns what was read before, or nil.
func (w *world) tryTakeOver(ctx context.Context, by *story.PC) *api.Takeover {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	told, err := by.Client.Takeover(ctx, vmName)
	if err != nil || told.Connected {
		return nil
	}
	if err := by.Client.TakeOver(ctx, api.TakeOverVM{VM: vmName, Token: told.Token}); err != nil {
		v, asked := w.ask(ctx, by)
		if asked != nil || !v.Here {
			w.say("%s doesn't take over: %v", by.Name, err)
			return nil
		}
	}
	return told
}

// taken begins the new history.
func (w *world) taken(old, by string, told *api.Takeover) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.histories++
	theirs := w.current
	w.current = theirs.fork(w.histories, told.Position)
	if told.Certain && told.Missing != nil && *told.Missing == 0 {
		w.current.durable = theirs.durable
	}
	w.forked = &fork{old: old, theirs: theirs}
	w.owner = by
	missing := "unknown"
	if told.Missing != nil {
		missing = strconv.FormatInt(*told.Missing, 10)
	}
	w.say("%s has taken over from %s at %d/%d (missing %s, certain %v): history %d must have record %d, %d was durable there",
		by, old, told.Position.Term, told.Position.Barrier, missing, told.Certain, w.histories, w.current.durable, theirs.durable)
}

// look takes a PC's copy as a kill would leave it at this moment, and judges it as the next boot would.
func (w *world) look(ctx context.Context, p *story.PC) error {
	// A disk whose newest blocks are elsewhere isn't whole by itself.
	if v, err := w.ask(ctx, p); err != nil || v.Hydration != nil {
		w.say("%s can't be looked at: hydrating %v, %v", p.Name, v.Hydration != nil, err)
		return nil
	}
	w.snapshots++
	dir := filepath.Join(w.o.Dir, fmt.Sprintf("look-%d", w.snapshots))
	defer os.RemoveAll(dir)
	if err := p.Host.Freeze(ctx); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "cp", "-a", "--sparse=always", filepath.Join(p.Data, "vms", w.vm, "disk"), dir).CombinedOutput()
	if err := errors.Join(err, p.Host.Thaw(ctx)); err != nil {
		return fmt.Errorf("copy the disk of %s: %w: %s", p.Name, err, out)
	}
	file := filepath.Join(w.o.Dir, "look.raw")
	defer os.Remove(file)
	said, err := p.Run(ctx, "disk", "export", dir, file, "--force", "--json")
	if err != nil {
		return fmt.Errorf("what %s has can't be read: %w", p.Name, err)
	}
	var made api.DiskExport
	if err := json.Unmarshal([]byte(said), &made); err != nil {
		return fmt.Errorf("tagalong disk export says %q: %w", said, err)
	}
	last, err := story.CheckImage(ctx, file)
	if err != nil {
		return fmt.Errorf("the copy on %s at %d/%d: %w", p.Name, made.Position.Term, made.Position.Barrier, err)
	}
	w.mu.Lock()
	must := w.current.by(made.Position)
	if w.forked != nil {
		must = min(must, w.forked.theirs.by(made.Position))
	}
	w.mu.Unlock()
	w.say("the copy on %s at %d/%d is whole and ends with record %d; %d was durable there", p.Name, made.Position.Term, made.Position.Barrier, last, must)
	if last < must {
		return fmt.Errorf("the copy on %s at %d/%d ends with record %d, but %d was durable there", p.Name, made.Position.Term, made.Position.Barrier, last, must)
	}
	return nil
}

func (w *world) ballast(name string) string { return filepath.Join(w.mount(name), "ballast") }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
