package directory

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestSpace pretends to fill the disk.
func TestSpace(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 30)
	s := &space{dir: t.TempDir(), free: func(string) (uint64, error) { return free.Load(), nil }, log: quiet}
	ballast := func() bool {
		st, err := os.Stat(s.path())
		return err == nil && st.Size() == ballastBytes
	}
	ctx := context.Background()
	must(t, s.prepare())
	must(t, s.check())
	s.adjust(ctx)
	if !ballast() {
		t.Fatal("no ballast")
	}
	free.Store(minFree - 1)
	wantErr(t, s.check(), ErrNoSpace)
	if !ballast() {
		t.Fatal("the ballast went too early")
	}
	free.Store(lastFree - 1)
	s.adjust(ctx)
	wantErr(t, s.prepare(), ErrNoSpace)
	if ballast() {
		t.Fatal("the ballast is still there")
	}
	free.Store(minFree)
	must(t, s.check())
	s.adjust(ctx)
	if ballast() {
		t.Fatal("the ballast came back too early")
	}
	free.Store(minFree + ballastAgain)
	s.adjust(ctx)
	if !ballast() {
		t.Fatal("the ballast didn't come back")
	}
	free.Store(lastFree - 1)
	wantErr(t, s.check(), ErrNoSpace)
	if ballast() {
		t.Fatal("a refused write left the ballast")
	}
	s.free = func(string) (uint64, error) { return 0, errors.New("no such thing") }
	wantErr(t, s.check(), ErrNoSpace)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.fill(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("fill: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.dir, "*")); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
}
