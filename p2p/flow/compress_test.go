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
		x := choice{share: 0.25, quick: c.quick, dense: c.dense}
		if got := x.next(c.link, false); got != c.want {
			t.Errorf("%s: level %d, want %d", name, got, c.want)
		}
	}
	// Who stopped compressing notices when it would help again.
	x, back := choice{share: 0.25, quick: 1}, 0
	for range 20 * tryEvery {
		if l := x.next(875e3, false); l != levelRaw {
			x.learn(l, 1<<18, 1<<16, time.Millisecond)
			back++
		}
	}
	if x.next(875e3, false) == levelRaw || back < tryEvery {
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
		x := choice{share: 1, quick: c.quick, dense: 1}
		if got := x.next(c.link, true); (got == levelRaw) != c.raw {
			t.Errorf("%s: level %d", name, got)
		}
		if got := x.next(c.link, false); got == levelRaw {
			t.Errorf("%s, which has enough to do: raw", name)
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
