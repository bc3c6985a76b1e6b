package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
)

func put(t *testing.T, f File, off int64, s string) {
	t.Helper()
	if _, err := f.WriteAt([]byte(s), off); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && n > 0 {
		t.Fatal(err)
	}
	return string(b)
}

// Both implementations must do the same.
func TestSame(t *testing.T) {
	for name, fsys := range map[string]FS{"os": OS(t.TempDir()), "mem": NewMem()} {
		t.Run(name, func(t *testing.T) {
			if _, err := fsys.Open("a"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open of nothing: %v", err)
			}
			f, err := fsys.Create("a")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := fsys.Create("a"); !errors.Is(err, fs.ErrExist) {
				t.Fatalf("second create: %v", err)
			}
			if err := f.Truncate(1 << 20); err != nil {
				t.Fatal(err)
			}
			put(t, f, 512<<10, string(bytes.Repeat([]byte("x"), 8192)))
			if d, err := f.NextData(0); err != nil || d > 512<<10 {
				t.Fatalf("next data %d, %v", d, err)
			}
			if h, err := f.NextHole(512 << 10); err != nil || h < 520<<10 {
				t.Fatalf("next hole %d, %v", h, err)
			}
			if d, err := f.NextData(600 << 10); err != nil || d < 600<<10 {
				t.Fatalf("data after the last: %d, %v", d, err)
			}
			if err := f.Punch(512<<10, 4096); err != nil {
				t.Fatal(err)
			}
			if err := f.ZeroRange(516<<10, 100); err != nil {
				t.Fatal(err)
			}
			got := content(t, fsys, "a")[512<<10 : 520<<10]
			if want := string(make([]byte, 4196)) + string(bytes.Repeat([]byte("x"), 3996)); got != want {
				t.Fatal("punched content differs")
			}
			if n, err := f.Allocated(); err != nil || n <= 0 || n > 1<<20 {
				t.Fatalf("allocated %d, %v", n, err)
			}
			if err := errors.Join(f.Sync(), fsys.Rename("a", "b"), fsys.SyncDir()); err != nil {
				t.Fatal(err)
			}
			l, err := fsys.Lock("lock")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fsys.Lock("lock"); !errors.Is(err, ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if l, err = fsys.Lock("lock"); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if n, err := fsys.Free(); err != nil || n <= 0 {
				t.Fatalf("free %d, %v", n, err)
			}
			if err := fsys.Remove("b"); err != nil {
				t.Fatal(err)
			}
			if _, err := fsys.Open("b"); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open of the removed: %v", err)
			}
		})
	}
}

func TestCrashLosesOnlyTheUnsynced(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		m := NewMem()
		f, err := m.Create("a")
		if err != nil {
			t.Fatal(err)
		}
		put(t, f, 0, "safe")
		if err := errors.Join(f.Sync(), m.SyncDir()); err != nil {
			t.Fatal(err)
		}
		put(t, f, 0, "X")
		put(t, f, 1, "Y")
		after := m.Crash(LoseSome, seed)
		if _, err := f.WriteAt([]byte("z"), 0); !errors.Is(err, ErrGone) {
			t.Fatalf("write after the crash: %v", err)
		}
		seen[content(t, after, "a")] = true
	}
	for _, want := range []string{"safe", "Xafe", "sYfe", "XYfe"} {
		if !seen[want] {
			t.Errorf("%q never survived", want)
		}
	}
	if len(seen) != 4 {
		t.Errorf("survivors: %v", seen)
	}
}

func TestCrashOfNames(t *testing.T) {
	m := NewMem()
	if _, err := m.Create("a"); err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir(); err != nil {
		t.Fatal(err)
	}
	if err := m.Rename("a", "b"); err != nil {
		t.Fatal(err)
	}
	if l, _ := m.Crash(LoseUnsynced, 0).List(); len(l) != 1 || l[0] != "a" {
		t.Fatalf("after a power cut: %v", l)
	}
	if l, _ := m.Crash(LoseNothing, 0).List(); len(l) != 1 || l[0] != "b" {
		t.Fatalf("after the process died: %v", l)
	}
}

func TestFailAt(t *testing.T) {
	m, boom := NewMem(), errors.New("boom")
	f, err := m.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	m.FailAt(2, boom, false)
	if err := f.Truncate(9); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, boom) {
		t.Fatalf("second call: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Fatalf("third call: %v", err)
	}
	m.FailAt(1, boom, true)
	if err := errors.Join(f.Sync(), nil); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, boom) {
		t.Fatal("not forever")
	}
}
