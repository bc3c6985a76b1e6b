package restore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newDisk makes a directory that stands for a disk.
func newDisk(t *testing.T, content string) (vm, disk string, s Shelf) {
	t.Helper()
	vm = t.TempDir()
	disk = filepath.Join(vm, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disk, "base.raw"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return vm, disk, Shelf(filepath.Join(vm, "kept"))
}

func content(t *testing.T, disk string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(disk, "base.raw"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTakeMovesTheDiskOnce(t *testing.T) {
	_, disk, s := newDisk(t, "lost")
	p := Point{ID: "abc123", Term: 3, Barrier: 9, At: time.Now(), Why: "Because."}
	if list, err := s.List(); err != nil || list != nil {
		t.Fatalf("of a shelf that isn't there: %v, %v", list, err)
	}
	if err := s.Take(p, disk); err != nil {
		t.Fatal(err)
	}
	// The replica that comes in its place must not be taken in a second try.
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Take(p, disk); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(disk); err != nil {
		t.Error("a second Take took the new disk too")
	}
	if got := content(t, s.Disk("abc123")); got != "lost" {
		t.Errorf("it holds %q", got)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Term != 3 || list[0].Barrier != 9 || list[0].Why != "Because." {
		t.Errorf("%+v, %v", list, err)
	}
	if s.Bytes("abc123") <= 0 {
		t.Error("it takes no space")
	}
}

// A crash between any two steps leaves the disk whole at one of its two places, and Take goes on.
func TestTakeAfterACrash(t *testing.T) {
	p := Point{ID: "a1", Why: "w"}
	for step, crashed := range map[string]func(s Shelf) error{
		"before anything":     func(Shelf) error { return nil },
		"after its directory": func(s Shelf) error { return os.MkdirAll(filepath.Join(string(s), "a1"), 0o700) },
		"after its note": func(s Shelf) error {
			return errors.Join(os.MkdirAll(filepath.Join(string(s), "a1"), 0o700), s.write(p))
		},
	} {
		_, disk, s := newDisk(t, "lost")
		if err := crashed(s); err != nil {
			t.Fatal(err)
		}
		if list, err := s.List(); err != nil || len(list) != 0 {
			t.Errorf("%s: listed %v, %v", step, list, err)
		}
		if content(t, disk) != "lost" {
			t.Errorf("%s: the disk is gone", step)
		}
		if err := s.Take(p, disk); err != nil {
			t.Errorf("%s: %v", step, err)
		}
		if content(t, s.Disk("a1")) != "lost" {
			t.Errorf("%s: not taken", step)
		}
	}
	_, disk, s := newDisk(t, "lost")
	if err := os.RemoveAll(disk); err != nil {
		t.Fatal(err)
	}
	if err := s.Take(p, disk); !errors.Is(err, ErrNoDisk) {
		t.Errorf("without a disk: %v", err)
	}
}

func TestRemoveAndWhatACrashLeaves(t *testing.T) {
	_, disk, s := newDisk(t, "lost")
	if err := s.Take(Point{ID: "a1"}, disk); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "..", "a2", "a1/../a1", "A1"} {
		if err := s.Remove(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("removing %q: %v", id, err)
		}
	}
	// As if it had died after the rename.
	if err := os.Rename(filepath.Join(string(s), "a1"), filepath.Join(string(s), "a1.gone")); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("half removed it is listed: %v, %v", list, err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(string(s)); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := Shelf(filepath.Join(t.TempDir(), "none")).Sweep(); err != nil {
		t.Error(err)
	}
}

// A person's directory may be called anything.
func TestRemoveBelowAnOddName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a-z]")
	disk, s := filepath.Join(dir, "disk"), Shelf(filepath.Join(dir, "kept"))
	if err := os.MkdirAll(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Take(Point{ID: "a1"}, disk), s.Remove("a1")); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(string(s)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestNotes(t *testing.T) {
	_, disk, s := newDisk(t, "lost")
	if err := s.Take(Point{ID: "a1"}, disk); err != nil {
		t.Fatal(err)
	}
	if err := s.Change("a1", func(p *Point) { p.Open = true }); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Get("a1"); err != nil || !p.Open {
		t.Errorf("%+v, %v", p, err)
	}
	for what, note := range map[string]string{"garbage": "}", "a newer version": `{"version":2,"id":"a1"}`, "another's": `{"version":1,"id":"b1"}`} {
		if err := os.WriteFile(s.note("a1"), []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get("a1"); !errors.Is(err, ErrNote) {
			t.Errorf("%s: %v", what, err)
		}
		if err := s.Change("a1", func(p *Point) { p.Open = false }); !errors.Is(err, ErrNote) {
			t.Errorf("%s was changed: %v", what, err)
		}
		if list, err := s.List(); err != nil || len(list) != 1 || list[0].ID != "a1" {
			t.Errorf("%s isn't listed: %v, %v", what, list, err)
		}
	}
	// What can't be read can still be deleted.
	if err := s.Remove("a1"); err != nil {
		t.Error(err)
	}
}
