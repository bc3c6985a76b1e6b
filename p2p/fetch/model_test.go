package fetch

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var seeds = flag.Int("fetch.seeds", 15, "how many lives of an owner TestModel goes through")

const (
	modelBlocks = 256
	modelPast   = 6 // positions before the hand-off
)

// history is a disk at each barrier: the versions of its blocks. Barrier modelPast is the hand-off's. Under mu.
type history struct {
	mu sync.Mutex
	at [][]uint64
}

func (h *history) disk(barrier uint64) []uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at[barrier]
}

// owner is the asker: it writes, and fetches what is stale.
type owner struct {
	t       *testing.T
	h       *history
	p       *Pool
	mu      sync.Mutex
	stale   map[int64]bool
	flying  map[int64]bool
	content map[int64]uint64 // what was written or fetched
	newer   int              // blocks that came too late
}

// model is one life: holders at positions before, at and after the hand-off come, go, move and fail; the owner writes and names
// positions; every fetched block that counts must be what the disk was at the hand-off.
func model(t *testing.T, seed uint64) (newer int) {
	r := rand.New(rand.NewPCG(seed, 2))
	h := &history{at: [][]uint64{make([]uint64, modelBlocks)}}
	for b := uint64(1); b <= modelPast; b++ {
		next := slices.Clone(h.at[b-1])
		for range 1 + r.IntN(40) {
			next[r.IntN(modelBlocks)] = b * uint64(r.IntN(4)) // zeros too
		}
		h.at = append(h.at, next)
	}
	hel := Hello{Target: Target{VM: "vm", Disk: ID{1}, Size: modelBlocks * Block, Term: 4}, At: Position{Term: 3, Barrier: modelPast}}
	p, err := NewPool(hel, Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{t: t, h: h, p: p, stale: map[int64]bool{}, flying: map[int64]bool{}, content: map[int64]uint64{}}
	for b := range int64(modelBlocks) {
		o.stale[b] = r.IntN(8) > 0
		if !o.stale[b] {
			o.content[b] = h.at[modelPast][b]
		}
	}
	// lacks of a holder at that barrier, with some that it has.
	lacks := func(r *rand.Rand, barrier uint64) Lacks {
		if barrier >= modelPast {
			return nil
		}
		var no [modelBlocks]bool
		for b := range no {
			no[b] = r.IntN(20) == 0
			for x := barrier + 1; x <= modelPast; x++ {
				no[b] = no[b] || h.disk(x)[b] != h.disk(x - 1)[b]
			}
		}
		return func(off int64) (bool, int64) {
			a := off / Block
			b := a
			for b < modelBlocks && no[b] == no[a] {
				b++
			}
			return no[a], b * Block
		}
	}
	position := func(barrier uint64) State {
		st := State{Complete: true, Position: Position{Term: 3, Barrier: barrier}}
		if barrier > modelPast {
			st.Position.Term = 4
		}
		return st
	}
	reader := func(r *rand.Rand, barrier uint64) Reader {
		versions := h.disk(barrier)
		var mu sync.Mutex
		return &fake{size: modelBlocks * Block, at: func(b int64) uint64 { return versions[b] }, hook: func(off, n int64) error {
			mu.Lock()
			x := r.IntN(40)
			mu.Unlock()
			switch x {
			case 0:
				return ErrNotHere
			case 1:
				return ErrOver
			case 2:
				return errDrive
			case 3:
				time.Sleep(time.Duration(off/Block) * 10 * time.Millisecond)
			}
			return nil
		}}
	}
	var holders []*holder
	for i := range 1 + r.IntN(4) {
		w := &path{delay: time.Duration(r.IntN(20)) * time.Millisecond, rate: 2e5 * float64(1+r.IntN(20))}
		barrier := uint64(r.IntN(modelPast + 1))
		x := &holder{name: string(rune('a' + i)), path: w, state: position(barrier), disk: reader(rand.New(rand.NewPCG(seed, uint64(i))), barrier)}
		judge := rand.New(rand.NewPCG(seed, uint64(i+100)))
		p.Add(Holder{Name: x.name, Dial: x.dial, Judge: func(st State) (Lacks, error) { return lacks(judge, st.Position.Barrier), nil }})
		holders = append(holders, x)
	}
	giver := &holder{name: "giver", path: &path{delay: 5 * time.Millisecond, rate: 1e6}, state: position(modelPast), disk: reader(rand.New(rand.NewPCG(seed, 50)), modelPast)}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 6 {
		wg.Go(func() { o.fetch(rand.New(rand.NewPCG(seed, uint64(i+200))), i < 2) })
	}
	wg.Go(func() { // the others' lives, and the owner's writes
		for step := 0; ; step++ {
			select {
			case <-done:
				return
			case <-time.After(time.Duration(r.IntN(60)) * time.Millisecond):
			}
			if step == 20 {
				p.Add(Holder{Name: giver.name, Dial: giver.dial})
			}
			x := holders[r.IntN(len(holders))]
			switch r.IntN(4) {
			case 0:
				x.leave()
			case 1:
				x.mu.Lock()
				x.away = false
				x.mu.Unlock()
			default: // it follows its owner, or starts again from another copy
				barrier := uint64(r.IntN(len(h.at)))
				if r.IntN(3) > 0 {
					o.write(r)
					barrier = uint64(len(h.at) - 1)
				}
				for _, y := range holders { // what is asked now comes from who is newer
					if y != x && r.IntN(2) == 0 {
						y.leave()
					}
				}
				x.leave()
				x.become(position(barrier), reader(rand.New(rand.NewPCG(seed, uint64(step+1000))), barrier))
				x.mu.Lock()
				x.away = false
				x.mu.Unlock()
			}
		}
	})
	wg.Go(func() {
		for !o.whole() {
			time.Sleep(10 * time.Millisecond)
		}
		close(done)
	})
	wg.Wait()
	p.Close()
	for _, x := range append(holders, giver) {
		x.path.cut()
		x.wg.Wait()
	}
	last := h.at[len(h.at)-1]
	for b := range int64(modelBlocks) {
		if o.content[b] != last[b] {
			t.Errorf("seed %d: block %d is of version %d in the end, not %d", seed, b, o.content[b], last[b])
		}
	}
	return o.newer
}

func (o *owner) whole() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.Contains(values(o.stale), true)
}

func values(m map[int64]bool) (out []bool) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// write writes some blocks and names the position after them: only then others can be at it.
func (o *owner) write(r *rand.Rand) {
	next := slices.Clone(o.h.disk(uint64(len(o.h.at) - 1)))
	barrier := uint64(len(o.h.at))
	for range 1 + r.IntN(6) {
		b := r.Int64N(modelBlocks)
		o.mu.Lock()
		for x := range int64(modelBlocks) { // rather what is being fetched
			if o.flying[(b+x)%modelBlocks] {
				b = (b + x) % modelBlocks
				break
			}
		}
		next[b] = 100 + barrier
		o.stale[b], o.content[b] = false, next[b]
		o.mu.Unlock()
	}
	o.h.mu.Lock()
	o.h.at = append(o.h.at, next)
	o.h.mu.Unlock()
}

// fetch fetches stale blocks, none twice at once, until nothing is stale.
func (o *owner) fetch(r *rand.Rand, demand bool) {
	for failures := 0; !o.whole(); {
		a, n := r.Int64N(modelBlocks), 1+r.Int64N(64)
		if failures > 3 {
			n = 1
		}
		o.mu.Lock()
		b := a
		for b < modelBlocks && b < a+n && o.stale[b] && !o.flying[b] {
			o.flying[b] = true
			b++
		}
		o.mu.Unlock()
		if a == b {
			time.Sleep(time.Millisecond)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		buf := make([]byte, (b-a)*Block)
		err := fetchOne(ctx, o.p, a*Block, buf, demand)
		cancel()
		if err != nil && !errors.Is(err, ErrNoHolder) {
			o.t.Errorf("fetch: %v", err)
		}
		if failures++; err == nil {
			failures = 0
			o.land(a, b, buf)
		} else {
			time.Sleep(100 * time.Millisecond)
		}
		o.mu.Lock()
		for x := a; x < b; x++ {
			o.flying[x] = false
		}
		o.mu.Unlock()
	}
}

// land takes what was fetched, as far as it is still stale.
func (o *owner) land(a, b int64, buf []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for x := a; x < b; x++ {
		v, ok := versionOf(buf[(x-a)*Block:][:Block], x)
		if !ok {
			o.t.Errorf("block %d is a mixture", x)
		}
		if want := o.h.disk(modelPast)[x]; v != want {
			if o.stale[x] {
				o.t.Errorf("block %d is stale, was of version %d at the hand-off, and %d was fetched", x, want, v)
			}
			o.newer++
		}
		if o.stale[x] {
			o.stale[x], o.content[x] = false, v
		}
	}
}

func TestModel(t *testing.T) {
	newer := 0
	for seed := range *seeds {
		synctest.Test(t, func(t *testing.T) { newer += model(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d blocks came too late", newer)
	if newer == 0 {
		t.Error("no block was fetched that had been written meanwhile: the lives are too tame")
	}
}
