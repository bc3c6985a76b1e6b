package push_test

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func mustPush(t testing.TB, pair func(testing.TB) (a, b wire.Stream), h push.Hello, w push.Work, d *replicaDisk, x push.Index) *[2]push.Stats {
	t.Helper()
	a, b := pair(t)
	st := new([2]push.Stats)
	if sent, received := pushed(t, a, b, h, w, d, x, st); sent != nil || received != nil {
		t.Fatalf("send: %v, receive: %v", sent, received)
	}
	return st
}

func TestACutArrives(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			const size = 3*push.Region + 5*block
			old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
			cut := old.clone()
			var lacks []int64
			for x := int64(0); x < size/block; x += 7 {
				lacks = append(lacks, x)
				switch x % 3 {
				case 0:
					cut.here[x] = noise(uint64(1000000 + x))
				case 1:
					cut.here[x] = bytes.Repeat([]byte("text "), 1000)[:block]
				default:
					cut.here[x] = nil
				}
			}
			d := newReplica(old, at(1))
			src := &source{content: cut, lacks: lacks}
			st := mustPush(t, pair, hello(size, at(5)), push.Work{Source: src, Exact: true}, d, nil)
			d.equals(t, cut, at(5))
			if len(src.done) != 4 || st[0].Covered.Load() != int64(len(lacks))*block || st[0].Todo.Load() != st[0].Covered.Load() {
				t.Errorf("%d regions done, %d of %d bytes covered", len(src.done), st[0].Covered.Load(), st[0].Todo.Load())
			}
			if got, sent := st[1].Received.Load(), st[0].Sent.Load(); got != sent {
				t.Errorf("sent %d, received %d", sent, got)
			}
		})
	}
}

// The promise of the wire: with exact dirty sets at most 1 % more than what was written, before compression (noise doesn't compress).
func TestBytesWithDirtySets(t *testing.T) {
	const size, blocks = 512 * mib, 512 * mib / block
	r := rand.New(rand.NewPCG(1, 1))
	old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	cut := old.clone()
	lacks := scatter(r, blocks, blocks/100)
	for _, x := range lacks {
		cut.here[x] = noise(uint64(x) + 1<<40)
	}
	d := newReplica(old, at(1))
	src := &source{content: cut, lacks: lacks}
	st := mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: src, Exact: true}, d, nil)
	d.equals(t, cut, at(2))
	ratio := float64(st[0].Sent.Load()) / float64(len(lacks)*block)
	t.Logf("%.4f × what was written", ratio)
	if ratio > 1.01 {
		t.Errorf("%.4f × what was written", ratio)
	}
	if src.read_ > 2*int64(len(lacks))*block {
		t.Errorf("%d bytes read of %d written", src.read_, len(lacks)*block)
	}
}

// The same when nobody knows any more what was written, and only the position is common.
func TestBytesWithHashesOnly(t *testing.T) {
	const size, blocks = 32 * mib, 32 * mib / block
	r := rand.New(rand.NewPCG(2, 1))
	old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	cut := old.clone()
	changed := scatter(r, blocks, blocks/100)
	for _, x := range changed {
		cut.here[x] = noise(uint64(x) + 1<<40)
	}
	d := newReplica(old, at(1))
	st := mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: cut}}, d, nil)
	d.equals(t, cut, at(2))
	ratio := float64(st[0].Sent.Load()) / float64(len(changed)*block)
	t.Logf("%.4f × what was written", ratio)
	if ratio > 1.10 {
		t.Errorf("%.4f × what was written", ratio)
	}
	if n := st[0].Content.Load(); n != int64(len(changed))*block {
		t.Errorf("%d bytes of content for %d written", n, len(changed)*block)
	}
}

// Blocks that were written, but with what they had, and blocks that moved, cost their sums.
func TestSameAndElsewhere(t *testing.T) {
	const size, blocks = 16 * mib, 16 * mib / block
	old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	cut := old.clone()
	var lacks []int64
	for x := range int64(blocks / 2) {
		lacks = append(lacks, x)
		if x%4 == 0 {
			cut.here[x] = noise(uint64(x) + 1<<40)
		}
	}
	d := newReplica(old, at(1))
	st := mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: cut, lacks: lacks}, Exact: true}, d, nil)
	d.equals(t, cut, at(2))
	if content, want := st[0].Content.Load(), int64(len(lacks)*block/4); content > want*102/100 {
		t.Errorf("%d bytes of content; %d had changed", content, want)
	}

	moved, x := newContent(size, nil), index{}
	for b := range int64(blocks / 4) {
		moved.here[b] = old.block(b + 100)
		x.add(moved.here[b])
	}
	fresh := newReplica(newContent(size, nil), push.Position{})
	st = mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: moved}}, fresh, x)
	fresh.equals(t, moved, at(2))
	if sent := st[0].Sent.Load(); sent > int64(blocks/4)*34+64*1024 {
		t.Errorf("%d bytes sent for %d blocks that the receiver had elsewhere", sent, blocks/4)
	}
	if n := st[1].Elsewhere.Load(); n != int64(blocks/4)*block {
		t.Errorf("%d bytes found elsewhere", n)
	}

	lying := index{}
	for sum := range x {
		lying[sum] = noise(99)
	}
	fresh = newReplica(newContent(size, nil), push.Position{})
	mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: moved}}, fresh, lying)
	fresh.equals(t, moved, at(2))
}

// An empty disk costs nothing, whatever its size; zeros over content cost a run.
func TestZeros(t *testing.T) {
	const size = 1 << 40
	d := newReplica(newContent(size, nil), push.Position{})
	empty := &source{content: newContent(size, nil), lacks: []int64{}}
	st := mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: empty}, d, nil)
	d.equals(t, empty.content, at(2))
	if n := st[0].Sent.Load(); n > 100 {
		t.Errorf("%d bytes for an empty disk", n)
	}

	const small = 32 * mib
	full := newReplica(newContent(small, func(x int64) []byte { return noise(uint64(x)) }), at(1))
	zeros := newContent(small, nil)
	st = mustPush(t, wiretest.TCP, hello(small, at(2)), push.Work{Source: &source{content: zeros}, Exact: true}, full, nil)
	full.equals(t, zeros, at(2))
	if n := st[0].Sent.Load(); n > 200 || st[0].Zeroed.Load() != small {
		t.Errorf("%d bytes for one run of zeros, %d zeroed", n, st[0].Zeroed.Load())
	}
}

func TestTextIsCompressed(t *testing.T) {
	const size = 4 * mib
	cut := newContent(size, nil)
	for x := range int64(size / block) {
		cut.here[x] = bytes.Repeat([]byte{byte(x), byte(x >> 8), 'x', 'y'}, block/4)
	}
	d := newReplica(newContent(size, nil), push.Position{})
	st := mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: cut}, Exact: true}, d, nil)
	d.equals(t, cut, at(2))
	if n := st[0].Sent.Load(); n > size/10 {
		t.Errorf("%d bytes for %d that compress well", n, size)
	}
}

type heat map[int64]uint64

func (h heat) Heat(r int64) uint64 { return h[r] }

func TestColdIsSentFirst(t *testing.T) {
	const size = 6 * push.Region
	cut := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	var lacks []int64
	for r := range int64(6) {
		lacks = append(lacks, r*push.Region/block+3)
	}
	src := &source{content: cut, lacks: lacks}
	d := newReplica(newContent(size, nil), at(1))
	mustPush(t, wiretest.Pipe, hello(size, at(2)), push.Work{Source: src, Exact: true, Heat: heat{0: 9, 1: 2, 3: 5, 4: 2}}, d, nil)
	var first []int64
	for _, r := range src.order {
		if !slices.Contains(first, r) {
			first = append(first, r)
		}
	}
	if want := []int64{2, 5, 1, 4, 3, 0}; !slices.Equal(first, want) {
		t.Errorf("regions in the order %v, want %v", first, want)
	}
}

// shortened is a stream that breaks after so many bytes were written to it.
type shortened struct {
	wire.Stream
	left  int
	other wire.Stream
}

var errCut = errors.New("the line was cut")

func (s *shortened) Write(p []byte) (int, error) {
	if len(p) <= s.left {
		s.left -= len(p)
		return s.Stream.Write(p)
	}
	n, _ := s.Stream.Write(p[:s.left])
	s.left = 0
	_ = s.Stream.Reset()
	_ = s.other.Reset()
	return n, errCut
}

// recorded notes where what is written ends.
type recorded struct {
	wire.Stream
	ends []int
	n    int
}

func (s *recorded) Write(p []byte) (int, error) {
	s.n += len(p)
	s.ends = append(s.ends, s.n)
	return s.Stream.Write(p)
}

// Cut the line after every write, and within it: the next push sends what is left, and hardly more.
func TestResumesAfterEveryWrite(t *testing.T) {
	const size = 2 * push.Region
	r := rand.New(rand.NewPCG(3, 3))
	old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	cut := old.clone()
	lacks := scatter(r, size/block, 120)
	for i, x := range lacks {
		if cut.here[x] = noise(uint64(x) + 1<<40); i%5 == 0 {
			cut.here[x] = nil
		}
	}
	work := func() push.Work { return push.Work{Source: &source{content: cut, lacks: lacks}, Exact: true} }
	h := hello(size, at(2))
	for _, whole := range []bool{true, false} {
		begin := func() *replicaDisk {
			if whole {
				return newReplica(old.clone(), at(1))
			}
			return newReplica(newContent(size, nil), push.Position{})
		}
		work := work
		if !whole {
			first := newContent(size, nil)
			for _, x := range lacks {
				first.here[x] = cut.here[x]
			}
			work = func() push.Work { return push.Work{Source: &source{content: first}} }
		}
		a, b := wiretest.TCP(t)
		rec := &recorded{Stream: a}
		var full [2]push.Stats
		if sent, received := pushed(t, rec, b, h, work(), begin(), nil, &full); sent != nil || received != nil {
			t.Fatal(sent, received)
		}
		if len(rec.ends) < 8 {
			t.Fatalf("only %d writes", len(rec.ends))
		}
		var cuts []int
		for i, end := range rec.ends {
			cuts = append(cuts, end)
			if i > 0 {
				cuts = append(cuts, (end+rec.ends[i-1])/2)
			}
		}
		for _, n := range cuts[:len(cuts)-1] {
			d := begin()
			before := d.content.clone()
			a, b := wiretest.TCP(t)
			sent, _ := pushed(t, &shortened{Stream: a, left: n, other: b}, b, h, work(), d, nil, nil)
			if sent == nil && n < rec.n {
				t.Fatalf("a push that was cut after %d of %d bytes succeeded", n, rec.n)
			}
			if n >= rec.n {
				continue
			}
			if whole && d.pos == at(1) {
				d.equals(t, before, at(1)) // invisible
			}
			if d.pos == at(2) {
				continue
			}
			held := d.written
			st := mustPush(t, wiretest.TCP, h, work(), d, nil)
			d.equals(t, work().Source.(*source).content, at(2))
			if again := held + d.written - held - full[0].Content.Load(); again > 0 {
				t.Fatalf("cut after %d bytes: %d bytes came twice", n, again)
			}
			if st[0].Content.Load()+held != full[0].Content.Load() {
				t.Fatalf("cut after %d bytes: %d bytes were there, %d of %d were sent", n, held, st[0].Content.Load(), full[0].Content.Load())
			}
		}
	}
}

// A later cut goes on with what came of the one before: what is equal in both isn't sent again.
func TestALaterCutSupersedes(t *testing.T) {
	const size, blocks = 16 * mib, 16 * mib / block
	r := rand.New(rand.NewPCG(4, 4))
	old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	first := old.clone()
	lacks := scatter(r, blocks, blocks/4)
	for _, x := range lacks {
		first.here[x] = noise(uint64(x) + 1<<40)
	}
	d := newReplica(old, at(1))
	a, b := wiretest.Pipe(t)
	const came = 3 * mib
	var st1 [2]push.Stats
	sent, _ := pushed(t, &shortened{Stream: a, left: came, other: b}, b, hello(size, at(2)), push.Work{Source: &source{content: first, lacks: lacks}, Exact: true}, d, nil, &st1)
	if sent == nil {
		t.Fatal("the line wasn't cut")
	}
	held := d.written

	// Since then every 50th was written again; and one that came is as it was before.
	second := first.clone()
	again := 0
	for i, x := range lacks {
		if i%50 == 0 {
			second.here[x] = noise(uint64(x) + 1<<41)
			if _, ok := d.layer[x]; ok {
				again++
			}
		}
	}
	back := int64(-1)
	for i, x := range lacks {
		if _, ok := d.layer[x]; ok && i%50 != 0 {
			back = x
		}
	}
	if back < 0 {
		t.Fatal("nothing came")
	}
	delete(second.here, back)
	later := slices.DeleteFunc(slices.Clone(lacks), func(x int64) bool { return x == back })
	st := mustPush(t, wiretest.TCP, hello(size, at(7)), push.Work{Source: &source{content: second, lacks: later}, Exact: true}, d, nil)
	d.equals(t, second, at(7))
	want := int64(len(lacks)*block) - held + int64(again+1)*block
	if n := st[0].Content.Load(); n != want {
		t.Errorf("%d bytes of content, want %d", n, want)
	}
	if over := float64(st[0].Sent.Load()-want) / float64(held); over > 0.01 {
		t.Errorf("%.4f of what was there was spent on making sure of it", over)
	}
}

// What an unfinished first copy brought, and the cut has as zeros, becomes zeros.
func TestZerosOverAFirstCopy(t *testing.T) {
	const size = 8 * mib
	d := newReplica(newContent(size, nil), push.Position{})
	d.copy, d.content.here[5], d.content.here[1500] = [16]byte{1}, noise(5), noise(6)
	cut := newContent(size, nil)
	cut.here[6] = noise(7)
	mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: cut, lacks: []int64{6}}}, d, nil)
	d.equals(t, cut, at(2))
}

// What a mirror began isn't gone on with: it counts on its own.
func TestAMirrorsCopyIsDropped(t *testing.T) {
	const size = 8 * mib
	old := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	d := newReplica(old, at(1))
	d.copy, d.layer = [16]byte{1, 2, 3}, map[int64][]byte{5: noise(12345)}
	cut := old.clone()
	cut.here[9] = noise(77)
	mustPush(t, wiretest.TCP, hello(size, at(2)), push.Work{Source: &source{content: cut, lacks: []int64{9}}, Exact: true}, d, nil)
	d.equals(t, cut, at(2))
}

func TestRefusals(t *testing.T) {
	const size = 8 * mib
	d := newReplica(newContent(size, nil), at(5))
	for name, c := range map[string]struct {
		h    push.Hello
		want error
	}{
		"same":     {hello(size, at(5)), push.ErrNotNewer},
		"older":    {hello(size, at(4)), push.ErrNotNewer},
		"nowhere":  {hello(size, push.Position{}), push.ErrHello},
		"too new":  {hello(size, push.Position{Term: 4}), push.ErrHello},
		"no size":  {hello(0, at(9)), push.ErrHello},
		"crooked":  {hello(block+1, at(9)), push.ErrHello},
		"no terms": {push.Hello{Target: push.Target{VM: "w", Disk: push.ID{1}, Size: size}, Cut: at(9)}, push.ErrHello},
	} {
		a, b := wiretest.TCP(t)
		opened := push.Work{Source: &source{content: newContent(size, nil), lacks: []int64{}}}
		sent, _ := pushed(t, a, b, c.h, opened, d, nil, nil)
		if !errors.Is(sent, c.want) {
			t.Errorf("%s: %v", name, sent)
		}
	}
	a, b := wiretest.TCP(t)
	go func() {
		_ = push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
			return push.Replica{}, push.State{}, &push.Refusal{Code: replica.RefuseBusy, Text: "in use"}
		}, nil)
	}()
	err := push.Send(t.Context(), a, hello(size, at(9)), nil, push.Options{})
	var refusal *push.Refusal
	if !errors.As(err, &refusal) || refusal.Code != replica.RefuseBusy {
		t.Error(err)
	}
}

// Either disk's trouble ends the push, and the other end learns why.
func TestDisksFail(t *testing.T) {
	const size = 8 * mib
	cut := newContent(size, func(x int64) []byte { return noise(uint64(x)) })
	full := &fullDisk{newReplica(newContent(size, nil), push.Position{})}
	a, b := wiretest.TCP(t)
	done := make(chan error, 1)
	go func() {
		done <- push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
			return push.Replica{Sink: full}, full.state(), nil
		}, nil)
	}()
	err := push.Send(t.Context(), a, hello(size, at(2)), func(push.State, iter.Seq2[int64, int64]) (push.Work, error) {
		return push.Work{Source: &source{content: cut}}, nil
	}, push.Options{})
	var failure *push.Failure
	if !errors.As(err, &failure) || failure.Code != push.FailSpace || !strings.Contains(failure.Text, "no space") {
		t.Errorf("send: %v", err)
	}
	if err := <-done; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("receive: %v", err)
	}

	a, b = wiretest.TCP(t)
	d := newReplica(newContent(size, nil), push.Position{})
	sent, received := pushed(t, a, b, hello(size, at(2)), push.Work{Source: &source{content: cut, fail: errDisk}}, d, nil, nil)
	if !errors.Is(sent, errDisk) || received == nil || d.complete {
		t.Errorf("send: %v, receive: %v", sent, received)
	}
}

type fullDisk struct{ *replicaDisk }

func (d *fullDisk) Write(int64, []byte) error { return syscall.ENOSPC }
