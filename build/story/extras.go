//go:build linux

package story

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Result is what has been found out so far.
func (s *Story) Result() *Result { return &s.result }

// KillEngine ends the engine of a PC as a crash would; it is started again.
func (s *Story) KillEngine(name string) error {
	for _, p := range []*PC{s.A, s.B} {
		if p.Name != name {
			continue
		}
		s.say("kill -9: the engine on %s, in the middle of mirroring", name)
		return p.Kill()
	}
	return fmt.Errorf("there is no PC called %q", name)
}

// OpenWindows opens each PC's window once its engine answers. Without a display it says so.
func (s *Story) OpenWindows(ctx context.Context) {
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		s.say("--window: there is no display here, so no windows")
		return
	}
	for _, p := range []*PC{s.A, s.B} {
		go func() {
			if p.Client.WaitReady(ctx) != nil {
				return
			}
			cmd := p.command(ctx, "--window")
			cmd.Stdout, cmd.Stderr = p.log, p.log
			if err := cmd.Run(); err != nil && ctx.Err() == nil && p.running() {
				s.say("the window of %s ended: %v", p.Name, err)
			}
		}()
	}
}

// Keep plays the story up to the live mirror and leaves the PCs to the person until ctx ends.
func (s *Story) Keep(ctx context.Context, out io.Writer) error {
	for _, chapter := range []func(context.Context) error{s.startEngines, s.pair, s.makeVM, s.boot, s.mirror, s.switches} {
		if err := chapter(ctx); err != nil {
			return fmt.Errorf("%w\n%s\n%s", err, s.A.LastWords(), s.B.LastWords())
		}
	}
	fmt.Fprintf(out, "\nThe PCs stay. In another terminal:\n")
	for _, p := range []*PC{s.A, s.B} {
		fmt.Fprintf(out, "\n  # %s\n", p.Name)
		for _, verb := range []string{"status", "switch " + VMName, "history " + VMName, "events"} {
			fmt.Fprintf(out, "  %s\n", shellLine(p.command(ctx, strings.Fields(verb)...)))
		}
		fmt.Fprintf(out, "  # its log: %s\n", p.log.Name())
	}
	fmt.Fprintf(out, "\nCtrl-C ends the demo and clears everything away.\n")
	<-ctx.Done()
	return nil
}

// shellLine is a command as a person would type it.
func shellLine(cmd *exec.Cmd) string {
	var words []string
	for _, a := range cmd.Args {
		if strings.ContainsAny(a, " \t'\"$") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}
