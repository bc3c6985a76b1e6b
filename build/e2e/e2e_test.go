//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/build/guest/console"
	"tagalong.org/tagalong/build/story"
)

// built is what TestMain has made for all tests.
var built struct{ binary, image string }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tagalong-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// compile builds tagalong with tags, at path.
func compile(path, tags string) error {
	build := exec.Command("go", "build", "-tags", tags, "-o", path, "tagalong.org/tagalong/cmd/tagalong")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build tagalong: %w\n%s", err, out)
	}
	return nil
}

// build makes the binary and the test guest's disk.
func build(dir string) error {
	built.binary = filepath.Join(dir, "tagalong")
	if err := compile(built.binary, "nogui"); err != nil {
		return err
	}
	var complaint bytes.Buffer
	image := exec.Command("../testguest.sh")
	image.Stderr = &complaint
	out, err := image.Output()
	if err != nil {
		return fmt.Errorf("build the test guest (see build/deps.sh): %w\n%s", err, complaint.String())
	}
	built.image = strings.TrimSpace(string(out))
	return nil
}

// patience bounds one story; it is far more than any takes, and says only that something hangs.
const patience = 8 * time.Minute

func play(t *testing.T, o story.Options) *story.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Binary, o.Image, o.Dir, o.Out, o.Quiet = built.binary, built.image, t.TempDir(), t.Output(), true
	result, err := story.Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(result.Summary())
	if result.Lost != 0 || result.Bad != 0 || result.Missing != 0 || result.Doubled != 0 || result.Records == 0 || result.Compared == 0 {
		t.Fatalf("the witnesses don't agree: %+v", result)
	}
	return result
}

// TestThereAndBack is the path of the first light: pair, find each other, boot, mirror, switch live, switch back. Before it
// switches, the disk is exported from under the guest.
func TestThereAndBack(t *testing.T) {
	t.Parallel()
	r := play(t, story.Options{BeforeSwitches: exported})
	if len(r.Switches) != 2 || r.Switches[0].To == r.Switches[1].To {
		t.Fatalf("it didn't go there and back: %+v", r.Switches)
	}
	for _, s := range r.Switches {
		if s.Memory == 0 || s.GuestPause == 0 {
			t.Errorf("a switch without memory or pause wasn't a teleport: %+v", s)
		}
	}
}

// TestEngineKilledWhileMirroring kills either engine in the middle; the VM goes on, and nothing is lost.
func TestEngineKilledWhileMirroring(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"desk", "laptop"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			r := play(t, story.Options{Mirroring: func(_ context.Context, s *story.Story) error { return s.KillEngine(victim) }})
			if r.Restarts == 0 {
				t.Error("no engine died: nothing was tested")
			}
		})
	}
}

// TestTroubledSwitches cancels one switch, cuts the cable in the middle of another, suspends and
// resumes the VM, and then switches as if nothing had been.
func TestTroubledSwitches(t *testing.T) {
	t.Parallel()
	r := play(t, story.Options{BeforeSwitches: func(ctx context.Context, s *story.Story) error {
		for _, trouble := range []func(context.Context, *story.Story) error{cancelled, cut, suspended} {
			if err := trouble(ctx, s); err != nil {
				return err
			}
		}
		return nil
	}})
	if len(r.Switches) != 2 {
		t.Fatalf("%d switches", len(r.Switches))
	}
}

// cancelled begins a switch and calls it off while memory flows.
func cancelled(ctx context.Context, s *story.Story) error {
	begun, err := s.B.Client.Switch(ctx, api.SwitchVM{VM: story.VMName})
	if err != nil {
		return err
	}
	if _, err := s.AwaitPhase(ctx, s.B, api.PhaseMemory); err != nil {
		return err
	}
	if err := s.B.Client.CancelSwitch(ctx, begun.ID); err != nil {
		return err
	}
	ended, err := s.AwaitEnd(ctx, s.B)
	if err != nil {
		return err
	}
	if ended.Phase != api.PhaseCancelled {
		return fmt.Errorf("the cancelled switch ended as %s: %v", ended.Phase, ended.Error)
	}
	return s.StillRuns(ctx, s.A)
}

// cut pulls the cable while memory flows, and plugs it in again.
func cut(ctx context.Context, s *story.Story) error {
	if _, err := s.B.Client.Switch(ctx, api.SwitchVM{VM: story.VMName}); err != nil {
		return err
	}
	if _, err := s.AwaitPhase(ctx, s.B, api.PhaseMemory); err != nil {
		return err
	}
	if err := s.Lab.Host("laptop").Cut(ctx); err != nil {
		return err
	}
	for _, p := range []*story.PC{s.B, s.A} {
		ended, err := s.AwaitEnd(ctx, p)
		if err != nil {
			return err
		}
		if ended.Phase != api.PhaseFailed || ended.Error == nil {
			return fmt.Errorf("with the cable cut the switch ended as %s on %s", ended.Phase, p.Name)
		}
	}
	if err := s.StillRuns(ctx, s.A); err != nil {
		return err
	}
	if _, err := s.B.Client.Switch(ctx, api.SwitchVM{VM: story.VMName}); !errors.Is(err, &api.Error{Code: api.CodeUnreachable}) {
		return fmt.Errorf("a switch without a cable: %w", err)
	}
	if err := s.Lab.Host("laptop").Heal(ctx); err != nil {
		return err
	}
	return s.AwaitLive(ctx, s.A)
}

// suspended puts the VM to disk and takes it up again: where it was, on the other PC, and back.
func suspended(ctx context.Context, s *story.Story) error {
	for _, way := range [][2]*story.PC{{s.A, s.A}, {s.A, s.B}, {s.B, s.A}} {
		from, to := way[0], way[1]
		if err := from.Client.SuspendVM(ctx, story.VMName); err != nil {
			return err
		}
		v, err := from.VM(ctx, story.VMName)
		if err != nil {
			return err
		}
		if v.State != api.VMSuspended {
			return fmt.Errorf("a suspended VM is %s", v.State)
		}
		if from != to {
			if _, err := to.Client.Switch(ctx, api.SwitchVM{VM: story.VMName}); err != nil {
				return err
			}
			if ended, err := s.AwaitEnd(ctx, to); err != nil || ended.Phase != api.PhaseDone {
				return fmt.Errorf("the switch of a suspended VM ended as %s: %v, %v", ended.Phase, ended.Error, err)
			}
		}
		// The line must have its listener before the guest goes on, or its first words are lost.
		listening := make(chan error, 1)
		go func() { listening <- s.Listen(ctx, to) }()
		err = to.Client.ResumeVM(ctx, story.VMName)
		if err := errors.Join(err, <-listening); err != nil {
			return err
		}
		if err := s.StillRuns(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

// TestAnIdleGuest switches a guest that does next to nothing: it converges at once, which must not keep it from
// being stopped by its giver.
func TestAnIdleGuest(t *testing.T) {
	t.Parallel()
	r := play(t, story.Options{Switches: 4, Rate: console.Rate{Records: 2, Fsync: 1, Mem: 0, Set: 1}})
	if len(r.Switches) != 4 {
		t.Fatalf("%d switches", len(r.Switches))
	}
}
