//go:build linux

// Command demo tells the story of two PCs and one running desktop, for real: package story plays it,
// build/demo.sh installs and builds what it needs and starts it.
//
// It exits 0 only if the guest's own check, the comparison of the disks and the tick log agree. It
// guarantees nothing that package story doesn't. Test it by running build/demo.sh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/build/story"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	// Without root the PCs live in a user namespace, in which this program starts anew.
	if err := lab.Enter(); err != nil {
		return err
	}
	var o story.Options
	var keep, window bool
	var kill string
	flag.StringVar(&o.Binary, "binary", "", "the built tagalong")
	flag.StringVar(&o.Image, "image", "", "the test guest's disk")
	flag.IntVar(&o.Switches, "switches", 2, "how often the VM moves")
	flag.BoolVar(&keep, "keep", false, "leave the PCs running and say how to drive them")
	flag.BoolVar(&window, "window", false, "open each PC's window, if there is a display")
	flag.StringVar(&kill, "kill", "", "kill -9 this PC's engine while the disk is mirrored: desk or laptop")
	flag.Parse()
	if o.Binary == "" || o.Image == "" || flag.NArg() > 0 {
		return errors.New("use build/demo.sh: it builds what this program needs")
	}
	if kill != "" && kill != "desk" && kill != "laptop" {
		return fmt.Errorf("there is no PC called %q: the two are desk and laptop", kill)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "tagalong-demo-")
	if err != nil {
		return err
	}
	if os.Getenv("TAGALONG_DEMO_DIR") == "" {
		defer os.RemoveAll(dir)
	}
	o.Dir, o.Out = dir, os.Stdout
	if kill != "" {
		o.Mirroring = func(_ context.Context, s *story.Story) error { return s.KillEngine(kill) }
	}
	s, err := story.Begin(ctx, o)
	if err != nil {
		return err
	}
	if window {
		s.OpenWindows(ctx)
	}
	err = play(ctx, s, keep)
	return errors.Join(err, s.Close())
}

func play(ctx context.Context, s *story.Story, keep bool) error {
	if keep {
		return s.Keep(ctx, os.Stdout)
	}
	began := time.Now()
	if err := s.Play(ctx); err != nil {
		return fmt.Errorf("%w\n%s\n%s", err, s.A.LastWords(), s.B.LastWords())
	}
	fmt.Print(s.Result().Summary())
	fmt.Printf("\n  All three witnesses agree: the guest, the disks, the ticks. (%s, %s)\n", time.Since(began).Round(time.Second), filepath.Base(os.Args[0]))
	return nil
}
