//go:build linux

package matrix

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
)

var (
	everything = flag.Bool("matrix.all", false, "every cell instead of a sample")
	cells      = flag.String("matrix.cell", "", "only cells whose name contains this, or one of these: giver-engine/given,link/")
	seed       = flag.Uint64("matrix.seed", 1, "which cells the sample has; 0 is others each time")
	some       = flag.Int("matrix.sample", 5, "how many cells the sample has")
	ofCarried  = flag.Int("matrix.carried", 2, "how many cells the sample has of a VM that is suspended for its way")
	row        = flag.Int("matrix.switches", 6, "how many switches in a row, after the cells")
	kills      = flag.Int("matrix.kills", 4, "an engine is killed in one of so many of those")
	keep       = flag.String("matrix.keep", "", "directory for the engines' logs of a run that failed")
)

// built is what TestMain has made for all tests.
var built struct{ binary, image string }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tagalong-matrix-")
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

// build makes the binary, which can be held, and the test guest's disk.
func build(dir string) error {
	built.binary = filepath.Join(dir, "tagalong")
	compile := exec.Command("go", "build", "-tags", "nogui tagalonghold", "-o", built.binary, "tagalong.org/tagalong/cmd/tagalong")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("build tagalong: %w\n%s", err, out)
	}
	var complaint bytes.Buffer
	image := exec.Command("../testguest.sh", "--size", "192M")
	image.Stderr = &complaint
	out, err := image.Output()
	if err != nil {
		return fmt.Errorf("build the test guest (see build/deps.sh): %w\n%s", err, complaint.String())
	}
	built.image = strings.TrimSpace(string(out))
	return nil
}

// chosen is which cells are tried.
func chosen(t *testing.T) []Cell {
	t.Helper()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	list := append(sample(all(), *seed, *some), sample(allCarried(), *seed, *ofCarried)...)
	if *everything || *cells != "" {
		list = nil
		for _, c := range append(all(), allCarried()...) {
			for part := range strings.SplitSeq(*cells, ",") {
				if strings.Contains(c.String(), part) && !slices.Contains(list, c) {
					list = append(list, c)
				}
			}
		}
	}
	if len(list) == 0 && *cells != "" {
		t.Fatalf("no cell is called %q", *cells)
	}
	return list
}

// TestMatrix tries cells of the failure matrix, one after the other, on the same two PCs; then it switches to and fro under load while engines are
// killed at random; and in the end the copies are compared and booted.
func TestMatrix(t *testing.T) {
	list := chosen(t)
	again := fmt.Sprintf("again with: go test ./build/matrix/ -matrix.seed %d -matrix.sample %d -matrix.carried %d -matrix.switches %d -matrix.kills %d", *seed, *some, *ofCarried, *row, *kills)
	t.Log(again)
	defer func() {
		if t.Failed() {
			t.Log(again)
		}
	}()
	ctx := t.Context()
	must, err := readTable(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(ctx, t)
	if ok := cellByCell(ctx, t, w, list, must); !ok {
		return
	}
	if *row > 0 {
		sum, err := w.inARow(ctx, *row, max(1, *kills), rand.New(rand.NewPCG(*seed, 0x726f77)))
		t.Log(sum)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.farewell(ctx); err != nil {
		t.Fatal(err)
	}
}

// cellByCell tries cells, and prints what became of each. It says whether the world can still be used.
func cellByCell(ctx context.Context, t *testing.T, w *world, list []Cell, must map[Cell]string) bool {
	t.Helper()
	var table strings.Builder
	defer func() { t.Logf("what came of it:\n%s", table.String()) }()
	for _, c := range list {
		began := time.Now()
		out, err := w.try(ctx, c)
		if err == nil && !out.fits(must[c]) {
			err = fmt.Errorf("the table of app/switching has %s, it came to %s", must[c], out.word())
		}
		fmt.Fprintf(&table, "%-24s %-14s %-10s %5.1f s", c, out.word(), out.Ended, time.Since(began).Seconds())
		for _, read := range []*api.Error{out.Meanwhile, out.Afterwards} {
			if read != nil {
				fmt.Fprintf(&table, "  %q", read.Error())
			}
		}
		fmt.Fprintln(&table)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			if w.failure() != nil {
				return false
			}
		}
	}
	return !t.Failed()
}

// newWorld makes a world that is closed with the test.
func newWorld(ctx context.Context, t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "tgm")
	if err != nil {
		t.Fatal(err)
	}
	if *keep != "" {
		if err := os.MkdirAll(*keep, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w, err := begin(ctx, Options{Binary: built.binary, Image: built.image, Dir: dir, Out: t.Output()})
	t.Cleanup(func() {
		if t.Failed() && *keep != "" && w.fleet != nil {
			for _, p := range w.fleet.PCs {
				if out, err := exec.Command("cp", p.Log(), *keep).CombinedOutput(); err != nil {
					t.Errorf("keep the logs: %v: %s", err, out)
				}
			}
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}
