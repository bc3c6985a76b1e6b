package console

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func tickLine(n int) string {
	return fmt.Sprintf("T %d %d %d\n", n, n*10_000, 1_700_000_000_000_000+n*10_000)
}

// A switch may cut the stream of bytes anywhere; every tick is found once.
func TestTornTickIsPutTogether(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var all strings.Builder
		const ticks = 6
		for n := 1; n <= ticks; n++ {
			all.WriteString(tickLine(n))
			if n == 3 {
				all.WriteString("R 16 16\n")
			}
		}
		s := all.String()
		// Before the cut at least one tick has come, else nothing shows that
		// the two halves belong together.
		cut := rapid.IntRange(len(tickLine(1)), len(s)).Draw(rt, "cut")
		tl := NewTimeline()
		a, ga := open(t, "A", tl)
		b, gb := open(t, "B", tl)
		ga.say(s[:cut])
		ga.conn.Close()
		<-a.Done()
		if cut < len(s) {
			gb.say(s[cut:])
		}
		gb.conn.Close()
		<-b.Done()

		got := tl.Ticks()
		for i, k := range got {
			if k.N != uint64(i)+1 || k.Mono != int64(k.N)*10_000 {
				rt.Fatalf("cut at %d: tick %d is %+v", cut, i, k)
			}
		}
		if len(got) != ticks || len(tl.Missing()) != 0 || len(tl.Doubled()) != 0 {
			rt.Fatalf("cut at %d: %d ticks, missing %v, doubled %v", cut, len(got), tl.Missing(), tl.Doubled())
		}
		if bad := a.Bad(); len(bad) != 0 {
			rt.Fatalf("cut at %d: bad lines %q", cut, bad)
		}
	})
}

// Two switches may both cut a tick: the halves of one fit those of the other, too.
func TestTwoTornTicks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var all strings.Builder
		const ticks = 8
		for n := 1; n <= ticks; n++ {
			all.WriteString(tickLine(n))
		}
		s, line := all.String(), len(tickLine(1))
		first := rapid.IntRange(2*line, 3*line).Draw(rt, "first")
		second := rapid.IntRange(5*line, 6*line).Draw(rt, "second")
		tl := NewTimeline()
		for i, part := range []string{s[:first], s[first:second], s[second:]} {
			c, g := open(t, []string{"A", "B", "A"}[i], tl)
			g.say(part)
			g.conn.Close()
			<-c.Done()
		}
		if got := tl.Ticks(); len(got) != ticks || len(tl.Missing()) != 0 || len(tl.Doubled()) != 0 {
			rt.Fatalf("cuts at %d and %d: %d ticks, missing %v, doubled %v", first, second, len(got), tl.Missing(), tl.Doubled())
		}
	})
}

// fill makes a time line of ticks at given times.
func fill(ticks ...Tick) *Timeline {
	tl := NewTimeline()
	tracks := map[string]*track{}
	for _, k := range ticks {
		tr, ok := tracks[k.Console]
		if !ok {
			tr = tl.open(k.Console)
			tracks[k.Console] = tr
		}
		tl.add(tr, k.At, k)
	}
	return tl
}

func at(n uint64, ms int, console string) Tick {
	return Tick{N: n, At: time.Duration(ms) * time.Millisecond, Console: console}
}

func TestGapsAcrossConsoles(t *testing.T) {
	tl := fill(at(1, 0, "A"), at(2, 10, "A"), at(4, 150, "B"), at(5, 160, "B"), at(3, 20, "A"), at(8, 230, "B"))
	g, ok := tl.MaxGap()
	if !ok || g.Pause() != 130*time.Millisecond || g.From.N != 3 || !g.Switched() {
		t.Errorf("longest pause: %v, %t", g, ok)
	}
	if s := tl.SwitchGaps(); len(s) != 1 || s[0] != g {
		t.Errorf("switches: %v", s)
	}
	if gs := tl.Gaps(70 * time.Millisecond); len(gs) != 2 || gs[1].To.N != 8 {
		t.Errorf("pauses: %v", gs)
	}
	if m := tl.Missing(); !slices.Equal(m, []uint64{6, 7}) {
		t.Errorf("missing: %v", m)
	}
	if last, ok := tl.Last(); !ok || last.N != 8 {
		t.Errorf("last: %+v, %t", last, ok)
	}
	if g.String() != "130ms from tick 3 at A to tick 4 at B" {
		t.Errorf("in words: %s", g)
	}
}

func TestAGuestThatRanTwiceShows(t *testing.T) {
	tl := fill(at(1, 0, "A"), at(2, 10, "A"), at(3, 20, "A"), at(2, 15, "B"), at(3, 25, "B"), at(4, 35, "B"))
	if d := tl.Doubled(); !slices.Equal(d, []uint64{2, 3}) {
		t.Errorf("doubled: %v", d)
	}
	if m := tl.Missing(); len(m) != 0 {
		t.Errorf("missing: %v", m)
	}
}

func TestAnEmptyTimeline(t *testing.T) {
	tl := NewTimeline()
	if _, ok := tl.MaxGap(); ok {
		t.Error("a pause without ticks")
	}
	if _, ok := tl.Last(); ok {
		t.Error("a last tick without ticks")
	}
	if tl.Gaps(0) != nil || tl.Missing() != nil || tl.Doubled() != nil {
		t.Error("findings without ticks")
	}
}

func TestMissingIsBounded(t *testing.T) {
	tl := fill(at(1, 0, "A"), at(1<<62, 10, "A"))
	if n := len(tl.Missing()); n != 1000 {
		t.Errorf("%d missing", n)
	}
}

func FuzzParseTick(f *testing.F) {
	f.Add("T 1 2 3")
	f.Add("T 1 2")
	f.Add("R 1 1")
	f.Add("T -1 99999999999999999999 3")
	f.Fuzz(func(t *testing.T, s string) {
		if k, ok := parseTick(s); ok && k.N == 0 {
			t.Errorf("%q is tick 0", s)
		}
		parseProgress(s)
		parseBoot(s)
		parseVerdict(s)
	})
}
