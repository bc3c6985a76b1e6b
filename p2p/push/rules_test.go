package push

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhatIsAskedFirst(t *testing.T) {
	for name, c := range map[string]struct {
		same  float64
		found float64
		index bool
		blank bool
		class class
		n     int
		cost  float64
		want  kind
		ok    bool
	}{
		"held, nothing changed":          {same: 0.9999, class: classHeld, n: 1024, cost: 1600, want: askRegion, ok: true},
		"held, few":                      {same: 0.9999, class: classHeld, n: 3, cost: 1600, want: askBlocks, ok: true},
		"guessed, one in a hundred":      {same: 0.99, class: classGuessed, n: 1024, cost: 1600, want: askUnits, ok: true},
		"guessed, every second":          {same: 0.5, class: classGuessed, n: 1024, cost: 1600, want: askBlocks, ok: true},
		"guessed, all changed":           {same: 0, class: classGuessed, n: 1024, cost: 1600},
		"guessed, onto nothing":          {same: 0.99, class: classGuessed, n: 1024, cost: 1600, blank: true},
		"written, often the same":        {same: 0.25, class: classWritten, n: 64, cost: 1600, want: askBlocks, ok: true},
		"written, hardly ever the same":  {same: 0.004, class: classWritten, n: 64, cost: 1600},
		"the same, but it costs more":    {same: 0.0041, class: classWritten, n: 64, cost: 4096, want: askBlocks, ok: true},
		"written, may be elsewhere":      {same: 0, found: 0.2, index: true, class: classWritten, n: 64, cost: 1600, want: askWide, ok: true},
		"written, hardly ever elsewhere": {same: 0, found: 0.015, index: true, class: classWritten, n: 64, cost: 1600},
		"an index, but all is in place":  {same: 0.995, found: 0.2, index: true, class: classGuessed, n: 8, cost: 1600, want: askBlocks, ok: true},
	} {
		a := newAsking(c.index, c.blank)
		a.same[c.class], a.found = c.same, c.found
		if k, ok := a.first(c.class, c.n, c.cost); ok != c.ok || ok && k != c.want {
			t.Errorf("%s: %d, %v", name, k, ok)
		}
	}
}

// What is asked follows what was found: whatever the share that is the same, the bytes come close to the better of asking and not.
func TestAskingLearns(t *testing.T) {
	for _, same := range []float64{0, 0.001, 0.01, 0.5, 1} {
		a, spent, asked := newAsking(false, false), 0.0, 0
		const regions, n, cost = 200, 100, 1600
		for range regions {
			k, ok := a.first(classWritten, n, cost)
			need := n - int(math.Round(n*same))
			if !ok {
				spent += n * cost
				continue
			}
			asked++
			if k.group() > 1 && need > 0 {
				need = n
			}
			spent += float64(k.sums(n)*k.size() + need*cost)
			a.learn(classWritten, k, n, need)
		}
		if best := min(n*cost, n*16+n*(1-same)*cost) * regions; spent > best*1.02 {
			t.Errorf("same %.3f: %.3f of the best, asked %d times", same, spent/best, asked)
		}
	}
}

func TestSetsSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blocks := rapid.IntRange(1, regionBlocks).Draw(t, "blocks")
		var m set
		for range rapid.IntRange(0, 400).Draw(t, "runs") {
			a := rapid.IntRange(0, blocks-1).Draw(t, "from")
			m.fill(a, min(blocks, a+rapid.SampledFrom([]int{1, 2, 70, 1024}).Draw(t, "length")))
		}
		b := m.appendTo(nil, blocks)
		if len(b) > 1+regionBlocks/8 {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := readSet(bytes.NewReader(b), blocks)
		if err != nil || got != m {
			t.Fatalf("%x: %v", b, err)
		}
		n := 0
		for a, e := range m.runs() {
			n += e - a
		}
		if n != m.count() {
			t.Fatalf("runs of %d blocks, %d set", n, m.count())
		}
		rest, part := m, set{}
		part = rest.take(5)
		if part.count() != min(5, n) || rest.count()+part.count() != n || part.and(&rest) != (set{}) {
			t.Fatal("take")
		}
	})
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	const blocks = 1 << 22
	h, err := gather(func(yield func(int64, int64) bool) {
		for x := int64(0); x < blocks; x += 2 + x>>6%97 {
			if !yield(x*Block, Block) {
				return
			}
		}
	}, blocks)
	if err != nil || len(h) > maxHeld || len(h) < maxHeld/4 {
		t.Fatalf("%d runs, %v", len(h), err)
	}
	got, err := readHeld(bytes.NewReader(h.appendTo(nil)), blocks)
	if err != nil || !slices.Equal(got, h) {
		t.Fatal(err)
	}
	// Nothing that is held is left out.
	for x := int64(0); x < blocks; x += 2 + x>>6%97 {
		if r := h.next(x); r.a != x {
			t.Fatalf("block %d isn't held any more", x)
		}
		if x%regionBlocks == 0 {
			m := h.in(x / regionBlocks)
			if !m.has(0) {
				t.Fatalf("block %d isn't held in its region", x)
			}
		}
	}
	for _, bad := range [][]int64{{0, 0}, {-Block, Block}, {1, Block}, {0, 5}, {blocks * Block, Block}, {0, Block, 0, Block}} {
		if _, err := gather(func(yield func(int64, int64) bool) {
			for i := 0; i < len(bad) && yield(bad[i], bad[i+1]); i += 2 {
			}
		}, blocks); !errors.Is(err, ErrSource) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestWhoGoesOn(t *testing.T) {
	cut := Position{Term: 2, Barrier: 9}
	mine, mirrors := ID{'p', 'u', 's', 'h', 1}, ID{'m', 1}
	for name, c := range map[string]struct {
		st   State
		want bool
	}{
		"nothing begun":         {State{Complete: true}, false},
		"the same cut":          {State{Complete: true, Copy: mine, Checkpoint: cut}, true},
		"an earlier cut":        {State{Complete: true, Copy: mine, Checkpoint: Position{Term: 1, Barrier: 50}}, true},
		"no checkpoint":         {State{Complete: true, Copy: mine}, true},
		"a later cut":           {State{Complete: true, Copy: mine, Checkpoint: Position{Term: 2, Barrier: 10}}, false},
		"a mirror's":            {State{Complete: true, Copy: mirrors}, false},
		"a first copy":          {State{Copy: mine, Position: cut}, true},
		"a first one, too late": {State{Copy: mine, Position: Position{Term: 3}}, false},
	} {
		id := copyFor(c.st, cut)
		if got := resumes(c.st, cut); got != c.want || got != (id == c.st.Copy) || [4]byte(id[:4]) != copyMark {
			t.Errorf("%s: %v, %x", name, got, id)
		}
	}
}

func TestCheckpointRule(t *testing.T) {
	for _, c := range []struct {
		n    int64
		d    time.Duration
		want bool
	}{{1<<20 - 1, time.Hour, false}, {1 << 30, time.Second - 1, false}, {1 << 20, time.Second, true}} {
		if checkpointDue(c.n, c.d) != c.want {
			t.Errorf("%d bytes after %v", c.n, c.d)
		}
	}
}
