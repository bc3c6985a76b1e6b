package limits

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/app/allowance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is limits with a device around them that the test plays.
type bench struct {
	*Limits
	t       *testing.T
	changed <-chan struct{}
	meter   chan bool

	mu       sync.Mutex
	draining bool
	percent  int
}

// start runs limits in a bubble until the test ends.
func start(t *testing.T, file string) *bench {
	b := &bench{t: t, meter: make(chan bool)}
	b.Limits = Open(Options{
		File: file, Log: slog.New(slog.DiscardHandler), Around: Around{
			Battery: func() (bool, int) {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.draining, b.percent
			},
			Metered: func(ctx context.Context, _ *slog.Logger, tell func(bool)) {
				for {
					select {
					case m := <-b.meter:
						tell(m)
					case <-ctx.Done():
						return
					}
				}
			},
		},
	})
	var stop func()
	b.changed, stop = b.Changed()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
		stop()
	})
	synctest.Wait()
	return b
}

func (b *bench) battery(draining bool, percent int) {
	b.mu.Lock()
	b.draining, b.percent = draining, percent
	b.mu.Unlock()
	b.pass(lookEvery)
}

// pass lets time go by.
func (b *bench) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// hint fails unless watchers were (or weren't) told that something changed.
func (b *bench) hint(want bool) {
	b.t.Helper()
	synctest.Wait()
	select {
	case <-b.changed:
		if !want {
			b.t.Fatal("a hint, and nothing has changed")
		}
	default:
		if want {
			b.t.Fatal("no hint")
		}
	}
}

// why fails unless a VM may be pushed, or not, for a reason.
func (b *bench) why(vm string, may bool, want allowance.Reason) {
	b.t.Helper()
	synctest.Wait()
	if a := b.Allowance(vm); a.May != may || a.Why != want {
		b.t.Fatalf("%v, %q; want %v, %q", a.May, a.Why, may, want)
	}
}

// in runs a test in a bubble.
func in(t *testing.T, test func(b *bench)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { test(start(t, filepath.Join(dir, "sync.json"))) })
}

// Whoever pushes hears of each change, and of nothing else.
func TestChangesAreTold(t *testing.T) {
	in(t, func(b *bench) {
		b.why("a", false, allowance.Looking)
		b.meter <- true
		b.hint(true)
		b.why("a", false, allowance.OnMetered)
		b.meter <- false
		b.hint(true)
		b.why("a", true, allowance.Free)
		b.battery(true, 80)
		b.hint(true)
		b.why("a", true, allowance.SlowOnce)
		if up, down := b.Pace(Up).Rate(), b.Pace(Down).Rate(); up != 1<<20 || down != 1<<20 {
			t.Fatalf("paces of %d and %d", up, down)
		}
		b.battery(true, 70)
		b.hint(false)
		b.battery(true, 29)
		b.hint(true)
		b.why("a", false, allowance.LowBattery)
		b.battery(true, 28)
		b.hint(false)
		b.battery(false, 28)
		b.hint(true)
		b.why("a", true, allowance.Free)
		if up := b.Pace(Up).Rate(); up != 0 {
			t.Fatalf("a pace of %d", up)
		}
		b.pass(time.Hour)
		b.hint(false)
	})
}

// Nobody who tells whether the connection is metered isn't waited for for ever.
func TestNobodyTells(t *testing.T) {
	in(t, func(b *bench) {
		b.pass(lookLimit - time.Second)
		b.why("a", false, allowance.Looking)
		b.pass(2 * time.Second)
		b.hint(true)
		b.why("a", true, allowance.Free)
	})
	synctest.Test(t, func(t *testing.T) {
		l := Open(Options{File: filepath.Join(t.TempDir(), "none"), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { _ = l.Run(ctx) })
		synctest.Wait()
		if a := l.Allowance("a"); !a.May {
			t.Errorf("nobody is asked, and %+v", a)
		}
		cancel()
		done.Wait()
	})
}

// A pause for a time ends on the dot, outlives the engine, and ends what was wished for before.
func TestPause(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sync.json")
	synctest.Test(t, func(t *testing.T) {
		b := start(t, file)
		b.meter <- false
		b.hint(true)
		b.Ask("a")
		b.hint(true)
		if err := b.Pause(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		b.hint(true)
		b.why("a", false, allowance.Paused)
		b.Ask("a")
		b.why("a", true, allowance.Asked)
		b.why("b", false, allowance.Paused)
		again := start(t, file)
		again.why("a", false, allowance.Paused) // wishes are for now
		b.pass(time.Hour - time.Nanosecond)
		b.hint(true) // the wish has lapsed
		b.why("a", false, allowance.Paused)
		b.pass(time.Millisecond)
		b.hint(true)
		b.why("a", true, allowance.Free)
		if s := b.Snapshot(); s.Paused || !s.PausedUntil.IsZero() {
			t.Errorf("%+v", s)
		}
		if err := b.Pause(time.Time{}); err != nil {
			t.Fatal(err)
		}
		b.pass(30 * time.Hour)
		b.why("a", false, allowance.Paused)
		if err := b.Resume(); err != nil {
			t.Fatal(err)
		}
		b.why("a", true, allowance.Free)
	})
}

// The schedule's edges are hinted at.
func TestScheduleEdges(t *testing.T) {
	in(t, func(b *bench) {
		b.meter <- false
		b.hint(true)
		now := time.Now()
		text := now.Add(2*time.Hour).Format("15:04") + "-" + now.Add(3*time.Hour).Format("15:04")
		err := b.Set(func(s *allowance.Settings) error {
			times, err := allowance.ParseTimes(text)
			s.Schedule = []allowance.Window{{Times: times, Do: allowance.Limit, Up: 5000}}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		b.hint(true)
		b.pass(2*time.Hour - time.Minute)
		b.hint(false)
		b.pass(time.Minute + time.Millisecond)
		b.hint(true)
		if r := b.Pace(Up).Rate(); r != 5000 || b.Pace(Down).Rate() != 0 {
			t.Errorf("pace of %d", r)
		}
		b.pass(time.Hour)
		b.hint(true)
		if r := b.Pace(Up).Rate(); r != 0 {
			t.Errorf("pace of %d", r)
		}
	})
}

// A wish is for one round of each VM.
func TestWishes(t *testing.T) {
	in(t, func(b *bench) {
		b.meter <- true
		b.Ask("a")
		b.why("a", true, allowance.Asked)
		b.why("b", false, allowance.OnMetered)
		first, open := b.Now("a")
		if _, other := b.Now("b"); !open || other {
			t.Fatal("the wish is of another VM")
		}
		b.Ask("")
		b.why("b", true, allowance.Asked)
		b.Served("a", first) // there is a later one
		b.why("a", true, allowance.Asked)
		second, _ := b.Now("a")
		if b.Served("a", second); second <= first {
			t.Fatalf("%d after %d", second, first)
		}
		b.why("a", false, allowance.OnMetered)
		b.why("b", true, allowance.Asked)
		b.hint(true)
		b.pass(wishFor)
		b.hint(true)
		b.why("b", false, allowance.OnMetered)
		b.Ask("a")
		third, open := b.Now("a")
		if b.Served("a", second); !open || third <= second {
			t.Fatalf("%d after %d", third, second)
		}
		b.why("a", true, allowance.Asked)
	})
}

// While something comes of it a wish stays open, however long that takes, and for a while after.
func TestAWishLapses(t *testing.T) {
	for _, of := range []string{"a", ""} {
		in(t, func(b *bench) {
			b.meter <- true
			b.Ask(of)
			b.pass(wishFor - time.Second)
			b.why("a", true, allowance.Asked)
			end, other := b.Begin("a"), b.Begin("a")
			b.pass(5 * time.Hour)
			b.why("a", true, allowance.Asked)
			if n := b.Snapshot().Rounds; n != 2 {
				t.Fatalf("%d pushes", n)
			}
			end()
			end()
			b.pass(time.Hour)
			other() // unfinished: a link that broke
			b.pass(wishFor - time.Second)
			b.why("a", true, allowance.Asked)
			quick := b.Begin("a") // a refusal, say
			quick()
			b.pass(2 * time.Second)
			b.why("a", false, allowance.OnMetered)
			if s := b.Snapshot(); s.Asked || s.Rounds != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// What is set is as it was after a restart.
func TestSettingsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sync.json")
	l := Open(Options{File: file, Log: slog.New(slog.DiscardHandler)})
	set := func(s *allowance.Settings) error {
		night, err := allowance.ParseTimes("mon-fri 22:00-6:00")
		*s = allowance.Settings{
			Up: 5000, Down: 6000, Metered: allowance.AllowMetered, Battery: allowance.Battery{Ignore: true, Below: 12, Rate: 7000},
			Schedule: []allowance.Window{{Times: night, Do: allowance.Only}, {Times: night, Do: allowance.Limit, Down: 8000}},
		}
		return err
	}
	until := time.Now().Add(time.Hour).Round(0)
	if err := errors.Join(l.Set(set), l.Pause(until)); err != nil {
		t.Fatal(err)
	}
	var want allowance.Settings
	_ = set(&want)
	s := Open(Options{File: file, Log: slog.New(slog.DiscardHandler)}).Snapshot()
	if s.Unreadable != nil || !s.Paused || !s.PausedUntil.Equal(until) {
		t.Errorf("%+v", s)
	}
	if w := (will{settings: s.Settings}); len(s.Settings.Schedule) != 2 {
		t.Errorf("%+v", w)
	} else if a, b := mustEncode(t, w), mustEncode(t, will{settings: want}); a != b {
		t.Errorf("%s, want %s", a, b)
	}
	// What makes no sense, or can't be kept, changes nothing.
	if err := l.Set(func(s *allowance.Settings) error { s.Up = 1; s.Schedule[0].Do = allowance.Off; return nil }); !errors.Is(err, allowance.ErrSettings) {
		t.Error(err)
	}
	own := errors.New("own")
	if err := l.Set(func(s *allowance.Settings) error { s.Up = 0; return own }); !errors.Is(err, own) {
		t.Error(err)
	}
	if err := os.Mkdir(file+".part", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Set(func(s *allowance.Settings) error { s.Up = 0; return nil }); err == nil {
		t.Error("kept in a directory")
	}
	if got := mustEncode(t, will{settings: l.Snapshot().Settings}); got != mustEncode(t, will{settings: want}) {
		t.Errorf("changed: %s", got)
	}
}

func mustEncode(t *testing.T, w will) string {
	t.Helper()
	b, err := w.encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file that can't be read isn't taken for another will than it says: nothing goes, whatever is wished for, and it isn't written over.
func TestUnreadable(t *testing.T) {
	good := mustEncode(t, will{settings: allowance.Default()})
	for what, text := range map[string]string{
		"empty":              "",
		"cut off":            good[:len(good)/2],
		"not ours":           "hello",
		"a list":             "[]",
		"no version":         `{}`,
		"another word":       strings.Replace(good, `"avoid"`, `"maybe"`, 1),
		"an unknown field":   strings.Replace(good, `"up"`, `"upp"`, 1),
		"a rate too low":     strings.Replace(good, `"up": 0`, `"up": 3`, 1),
		"times":              strings.Replace(good, `"metered"`, `"schedule": [{"when": "noon", "do": "off"}], "metered"`, 1),
		"an unknown action":  strings.Replace(good, `"metered"`, `"schedule": [{"when": "8:00-9:00", "do": "of"}], "metered"`, 1),
		"of a newer version": strings.Replace(good, `"version": 1`, `"version": 2`, 1),
		"big":                good + strings.Repeat(" ", maxFile),
	} {
		file := filepath.Join(t.TempDir(), "sync.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := Open(Options{File: file, Log: slog.New(slog.DiscardHandler)})
		l.Ask("")
		s := l.Snapshot()
		if a := l.Allowance("a"); a.May || a.Why != allowance.Unreadable || !errors.Is(s.Unreadable, ErrUnreadable) || errors.Is(s.Unreadable, ErrVersion) != (what == "of a newer version") {
			t.Errorf("%s: %+v, %v", what, a, s.Unreadable)
		}
		for _, err := range []error{l.Set(func(*allowance.Settings) error { return nil }), l.Pause(time.Time{}), l.Resume()} {
			if !errors.Is(err, ErrUnreadable) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("%s: written over: %v", what, err)
		}
		put, err := l.Reset()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(put); err != nil || string(b) != text {
			t.Errorf("%s: not put aside: %v", what, err)
		}
		if s := Open(Options{File: file, Log: slog.New(slog.DiscardHandler)}).Snapshot(); s.Unreadable != nil || l.Snapshot().Unreadable != nil || s.Settings.Metered != allowance.AvoidMetered {
			t.Errorf("%s: %+v", what, s)
		}
		if put, err := l.Reset(); err != nil || put != "" {
			t.Errorf("%s: again: %q, %v", what, put, err)
		}
	}
	if s := Open(Options{File: t.TempDir(), Log: slog.New(slog.DiscardHandler)}).Snapshot(); !errors.Is(s.Unreadable, ErrUnreadable) || errors.Is(s.Unreadable, fs.ErrNotExist) {
		t.Errorf("a directory: %v", s.Unreadable)
	}
}
