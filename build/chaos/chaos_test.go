//go:build linux

package chaos

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/build/lab"
)

var (
	lasts = flag.Duration("chaos.for", 80*time.Second, "how long things go wrong; what comes before and after takes two minutes")
	seed  = flag.Uint64("chaos.seed", 1, "what goes wrong; 0 is another plan each time")
	rate  = flag.Int64("chaos.wan", 50_000_000, "the link between the sites, in bit/s")
	keep  = flag.String("chaos.keep", "", "directory for the engines' logs of a run that failed")
	races = flag.Bool("chaos.race", false, "build the engines with the race detector")
)

// TestChaos carries one plan out.
func TestChaos(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with: go test ./build/chaos/ -run TestChaos -chaos.seed %d -chaos.for %v -chaos.wan %d", *seed, *lasts, *rate)
	dir := t.TempDir()
	binary, image := build(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), *lasts+25*time.Minute)
	defer cancel()
	err := Run(ctx, Options{
		Binary: binary, Image: image, Dir: dir, Out: t.Output(),
		Plan: NewPlan(*seed, 3, *lasts),
		WAN:  lab.WAN{Rate: *rate, RoundTrip: 40 * time.Millisecond},
	})
	if err != nil && *keep != "" {
		if kept := keepLogs(dir); kept != nil {
			t.Error(kept)
		}
	}
	if err != nil {
		t.Fatalf("seed %d: %v", *seed, err)
	}
}

// keepLogs copies the engines' logs to where the person wants them.
func keepLogs(dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return err
	}
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*keep, fmt.Sprintf("%d-%s", *seed, filepath.Base(log))), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// build makes the binary and the test guest's disk.
func build(t *testing.T, dir string) (binary, image string) {
	t.Helper()
	binary = filepath.Join(dir, "tagalong")
	args := []string{"build", "-tags", "nogui", "-o", binary}
	if *races {
		args = append(args, "-race")
	}
	compile := exec.Command("go", append(args, "tagalong.org/tagalong/cmd/tagalong")...)
	compile.Env = append(os.Environ(), fmt.Sprintf("CGO_ENABLED=%d", map[bool]int{true: 1}[*races]))
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build tagalong: %v\n%s", err, out)
	}
	var complaint bytes.Buffer
	guest := exec.Command("../testguest.sh")
	guest.Stderr = &complaint
	out, err := guest.Output()
	if err != nil {
		t.Fatalf("build the test guest (see build/deps.sh): %v\n%s", err, complaint.String())
	}
	return binary, strings.TrimSpace(string(out))
}
