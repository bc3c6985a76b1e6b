package ui

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		-5: "0 B", 0: "0 B", 1: "1 B", 999: "999 B", 1000: "1 KiB", 1024: "1 KiB", 1536: "1.5 KiB",
		20 * gib: "20 GiB", 3 * gib / 2: "1.5 GiB", 1023 * mib: "1 GiB", 1<<63 - 1: "8192 PiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) is %q, want %q", n, got, want)
		}
	}
}

func TestSizeIsShort(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(0, 900<<50).Draw(rt, "n")
		if s := size(n); len(s) > len("999 KiB") {
			rt.Fatalf("size(%d) is %q", n, s)
		}
	})
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 0: "0 ms", 83 * time.Millisecond: "83 ms", 59 * time.Second: "59 s",
		150 * time.Second: "2 min 30 s", 125 * time.Minute: "2 h 5 min", 72 * time.Hour: "3 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) is %q, want %q", d, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "less than a minute ago", time.Minute: "1 minute ago", 90 * time.Minute: "1 hour ago",
		25 * time.Hour: "25 hours ago", 50 * time.Hour: "2 days ago",
	} {
		if got := ago(testNow.Add(-d), testNow); got != want {
			t.Errorf("%v ago is %q, want %q", d, got, want)
		}
	}
	if got := ago(time.Time{}, testNow); got != "never heard of" {
		t.Errorf("never is %q", got)
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		want        int
	}{{0, 0, 0}, {5, 0, 0}, {-1, 9, 0}, {999, 1000, 99}, {1000, 1000, 100}, {2000, 1000, 100}, {1 << 62, 1<<63 - 1, 50}} {
		if got := percent(c.done, c.total); got < c.want-1 || got > c.want || (got == 100) != (c.want == 100) {
			t.Errorf("percent(%d, %d) is %d, want %d", c.done, c.total, got, c.want)
		}
	}
}
