package flow

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func TestLevels(t *testing.T) {
	for name, c := range map[string]struct {
		link, quick, dense float64
		want               level
	}{
		"thesis's uplink":       {875e3, 1, 1, levelDefault},
		"unknown":               {0, 1, 1, levelDefault},
		"a very slow link":      {50e3, 1, 4, levelBetter},
		"100 Mbit/s":            {12.5e6, 1, 1, levelFastest},
		"1 Gbit/s":              {118e6, 1, 1, levelRaw},
		"a slow computer":       {875e3, 0.03, 1, levelFastest},
		"a very slow computer":  {875e3, 0.01, 1, levelRaw},
		"content that is dense": {875e3, 1, 0, levelRaw},
	} {
		x := choice{share: 0.25, most: 1, quick: c.quick, dense: c.dense}
		if got := x.next(c.link, false); got != (Plan{c.want, 1}) {
			t.Errorf("%s: %+v, want level %d", name, got, c.want)
		}
	}
	// Who stopped compressing notices when it would help again.
	x, back := choice{share: 0.25, most: 1, quick: 1}, 0
	for range 20 * tryEvery {
		if p := x.next(875e3, false); !p.Raw() {
			x.learn(p.level, 1<<18, 1<<16, time.Millisecond)
			back++
		}
	}
	if x.next(875e3, false).Raw() || back < tryEvery {
		t.Errorf("%d batches compressed, %+v", back, x)
	}
}

// A fast link that waits for what is compressed gets it as it is; a slow one never does.
func TestStarvedLink(t *testing.T) {
	for name, c := range map[string]struct {
		link, quick float64
		raw         bool
	}{
		"home's uplink":                     {875e3, 1, false},
		"home's uplink on a slow computer":  {875e3, 0.1, false},
		"100 Mbit/s":                        {12.5e6, 1, false},
		"1 Gbit/s":                          {118e6, 1, true},
		"one that is fast, as far as known": {60e6, 1, true},
		"100 Mbit/s on a slow computer":     {12.5e6, 0.2, true},
	} {
		x := choice{share: 1, most: 1, quick: c.quick, dense: 1}
		if got := x.next(c.link, true); got.Raw() != c.raw {
			t.Errorf("%s: %+v", name, got)
		}
		if got := x.next(c.link, false); got.Raw() {
			t.Errorf("%s, which has enough to do: raw", name)
		}
	}
}

// More lanes are taken where they bring something: neither where the link is slower than one, nor where it is faster than all; and as they are paid with cores,
// no more than that.
func TestLanes(t *testing.T) {
	for name, c := range map[string]struct {
		lanes              int
		link, quick, dense float64
		want               Plan
	}{
		"not known yet":                    {4, 0, 1, 1, Plan{levelDefault, 1}},
		"home's uplink":                    {4, 875e3, 1, 1, Plan{levelDefault, 1}},
		"home's uplink on a slow computer": {4, 875e3, 0.01, 1, Plan{levelDefault, 2}},
		"100 Mbit/s":                       {4, 12.5e6, 1, 1, Plan{levelDefault, 1}},
		"100 Mbit/s on a slow computer":    {4, 12.5e6, 0.1, 1, Plan{levelFastest, 2}},
		"1 Gbit/s with one core":           {1, 118e6, 1, 1, Plan{levelFastest, 1}},
		"1 Gbit/s":                         {4, 118e6, 1, 1, Plan{levelFastest, 2}},
		"1 Gbit/s on a quick computer":     {4, 118e6, 2, 1, Plan{levelFastest, 1}},
		"1 Gbit/s, dense":                  {4, 118e6, 1, 0, Plan{levelRaw, 1}},
		"1 Gbit/s, half as dense":          {4, 118e6, 1, 0.5, Plan{levelDefault, 2}},
		"2.5 Gbit/s with one core":         {1, 295e6, 1, 1, Plan{levelRaw, 1}},
		"2.5 Gbit/s with two":              {2, 295e6, 1, 1, Plan{levelFastest, 2}},
		"2.5 Gbit/s":                       {4, 295e6, 1, 1, Plan{levelFastest, 4}},
		"2.5 Gbit/s, nearly empty":         {4, 295e6, 3, 4, Plan{levelFastest, 4}},
		"2.5 Gbit/s, dense":                {4, 295e6, 1, 0, Plan{levelRaw, 1}},
		"10 Gbit/s with two":               {2, 1180e6, 1, 1, Plan{levelRaw, 1}},
		"10 Gbit/s":                        {4, 1180e6, 1, 1, Plan{levelRaw, 1}},
		"10 Gbit/s on a quick computer":    {4, 1180e6, 2, 1, Plan{levelFastest, 4}},
		"more lanes than there are":        {64, 295e6, 1, 1, Plan{levelFastest, MaxLanes}},
		"none":                             {0, 118e6, 1, 1, Plan{levelFastest, 1}},
	} {
		x := newChoice(1, c.lanes)
		x.quick, x.dense = c.quick, c.dense
		if got := x.next(c.link, false); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	for name, c := range map[string]struct {
		lanes int
		link  float64
		want  Plan
	}{
		"1 Gbit/s in one lane": {1, 118e6, Plan{levelRaw, 1}},
		"1 Gbit/s":             {4, 118e6, Plan{levelRaw, 2}},
		"100 Mbit/s":           {4, 12.5e6, Plan{levelDefault, 1}},
	} {
		x := newChoice(1, c.lanes)
		if got := x.next(c.link, true); got != c.want {
			t.Errorf("%s, starved: %+v, want %+v", name, got, c.want)
		}
	}
	for name, c := range map[string]struct{ cores, guests, want int }{
		"one core": {1, 1, 1}, "this one": {2, 1, 1}, "two and two": {4, 2, 1}, "four left, but one": {8, 4, 3}, "many": {32, 8, MaxLanes}, "more guests than cores": {4, 9, 1},
	} {
		if got := Lanes(c.cores, c.guests); got != c.want {
			t.Errorf("%s: %d lanes, want %d", name, got, c.want)
		}
	}
}

// A little content that says that it is much takes no memory, and is refused.
func TestBombs(t *testing.T) {
	const block, maxBatch = 4096, 64 * 4096
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	huge := enc.EncodeAll(make([]byte, 64<<20), nil)
	x := NewExpander(maxBatch)
	if _, err := x.Unpack(Zstd, huge, maxBatch); !errors.Is(err, ErrContent) {
		t.Errorf("a bomb of %d bytes: %v", len(huge), err)
	}
	for _, n := range []int{block, 3 * block, maxBatch} {
		small := enc.EncodeAll(bytes.Repeat([]byte{1}, n), nil)
		if p, err := x.Unpack(Zstd, small, n); err != nil || len(p) != n {
			t.Errorf("%d bytes: %v", n, err)
		}
		for _, m := range []int{n - block, n + block} {
			if m == 0 || m > maxBatch {
				continue
			}
			if _, err := x.Unpack(Zstd, small, m); !errors.Is(err, ErrContent) {
				t.Errorf("%d bytes for %d: %v", n, m, err)
			}
		}
	}
	if _, err := x.Unpack(Zstd, []byte("not compressed"), block); !errors.Is(err, ErrContent) {
		t.Errorf("nonsense: %v", err)
	}
}
