package push_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	block = push.Block
	mib   = 1 << 20
)

func at(barrier uint64) push.Position { return push.Position{Term: 3, Barrier: barrier} }

func hello(size int64, cut push.Position) push.Hello {
	return push.Hello{Target: push.Target{VM: "work", Disk: push.ID{1}, Size: size, Term: 3}, Cut: cut}
}

// noise is a block that nothing compresses.
func noise(id uint64) []byte {
	b := make([]byte, block)
	r := rand.NewPCG(id, 7)
	for i := 0; i < block; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b
}

// content is a disk's: blocks that aren't there come from below, and are zeros without it. What is in it never changes.
type content struct {
	size  int64
	here  map[int64][]byte // nil is zeros
	below func(x int64) []byte
}

func newContent(size int64, below func(int64) []byte) *content {
	return &content{size: size, here: map[int64][]byte{}, below: below}
}

// block is nil for zeros.
func (c *content) block(x int64) []byte {
	if b, ok := c.here[x]; ok || c.below == nil {
		return b
	}
	return c.below(x)
}

func (c *content) clone() *content { return &content{c.size, maps.Clone(c.here), c.below} }

func (c *content) read(p []byte, off int64) {
	for i := range len(p) / block {
		b := p[i*block : (i+1)*block]
		clear(b)
		copy(b, c.block(off/block+int64(i)))
	}
}

// source is a cut: content, of which the blocks in lacks may be missing at the receiver.
type source struct {
	*content
	lacks []int64 // sorted blocks; nil is all
	read_ int64   // bytes
	order []int64 // regions in which content was read
	done  map[int64]bool
	fail  error
}

func (s *source) Next(off int64) (int64, int64) {
	x := off / block
	if s.lacks == nil {
		if off >= s.size {
			return s.size, 0
		}
		return off, s.size - off
	}
	i, _ := slices.BinarySearch(s.lacks, x)
	if i == len(s.lacks) {
		return s.size, 0
	}
	from := s.lacks[i]
	end := from
	for ; i < len(s.lacks) && s.lacks[i] == end; i++ {
		end++
	}
	return from * block, (end - from) * block
}

func (s *source) Extents(off, n int64) ([]push.Extent, error) {
	hole := s.block(off/block) == nil
	end := off
	for end < off+n && (s.block(end/block) == nil) == hole {
		end += block
	}
	return []push.Extent{{Len: end - off, Hole: hole}}, nil
}

func (s *source) ReadAt(p []byte, off int64) error {
	if s.done[off/push.Region] {
		return errors.New("read after it was done")
	}
	if r := off / push.Region; len(s.order) == 0 || s.order[len(s.order)-1] != r {
		s.order = append(s.order, r)
	}
	s.read_ += int64(len(p))
	s.content.read(p, off)
	return s.fail
}

func (s *source) Done(off, n int64) {
	if s.done == nil {
		s.done = map[int64]bool{}
	}
	if off%push.Region != 0 || s.done[off/push.Region] || n != min(push.Region, s.size-off) {
		panic("done out of place")
	}
	s.done[off/push.Region] = true
}

var errDisk = errors.New("the disk broke")

// replicaDisk is a receiver's disk that can lose what wasn't made durable.
type replicaDisk struct {
	mu       sync.Mutex
	content  *content // what it is, or, if it isn't whole, what came so far
	complete bool
	pos      push.Position
	copy     [16]byte
	layer    map[int64][]byte // of the copy, if it is whole
	mark     push.Position
	applying bool

	stable  map[int64][]byte // of the layer, or of the content
	calls   int
	failAt  int           // the call from which on all fail; 0 is never
	slow    time.Duration // a checkpoint takes so long
	written int64
}

func newReplica(c *content, pos push.Position) *replicaDisk {
	return &replicaDisk{content: c, complete: pos != push.Position{}, pos: pos, stable: map[int64][]byte{}}
}

func (d *replicaDisk) state() push.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := push.State{Complete: d.complete, Position: d.pos, Copy: d.copy, Checkpoint: d.mark}
	if !d.complete {
		s.Position, s.Checkpoint = d.mark, push.Position{}
	}
	return s
}

func (d *replicaDisk) call() error {
	d.calls++
	if d.failAt > 0 && d.calls >= d.failAt {
		return errDisk
	}
	return nil
}

// over is what writes go to.
func (d *replicaDisk) over() map[int64][]byte {
	if d.complete {
		return d.layer
	}
	return d.content.here
}

func (d *replicaDisk) Held() iter.Seq2[int64, int64] {
	return func(yield func(int64, int64) bool) {
		for _, x := range slices.Sorted(maps.Keys(d.over())) {
			if !yield(x*block, block) {
				return
			}
		}
	}
}

func (d *replicaDisk) Begin(copy [16]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	if copy != d.copy {
		d.copy, d.mark = copy, push.Position{}
		if d.complete {
			d.layer, d.stable = map[int64][]byte{}, map[int64][]byte{}
		}
	}
	d.applying = true
	return nil
}

func (d *replicaDisk) ReadAt(p []byte, off int64) error {
	for i := range len(p) / block {
		x := off/block + int64(i)
		b, ok := d.layer[x]
		if !ok || !d.complete {
			b = d.content.block(x)
		}
		clear(p[i*block : (i+1)*block])
		copy(p[i*block:], b)
	}
	return nil
}

func (d *replicaDisk) Write(off int64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	if !d.applying || off < 0 || off%block != 0 || len(p) == 0 || len(p)%block != 0 || len(p) > push.MaxBatch || off+int64(len(p)) > d.content.size {
		panic("write out of place")
	}
	d.written += int64(len(p))
	for i := 0; i < len(p); i += block {
		d.over()[(off+int64(i))/block] = bytes.Clone(p[i : i+block])
	}
	return nil
}

func (d *replicaDisk) Zero(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	if !d.applying || off < 0 || off%block != 0 || n <= 0 || n%block != 0 || off > d.content.size-n {
		panic("zeros out of place")
	}
	for x := off / block; x < (off+n)/block; x++ {
		d.over()[x] = nil
	}
	return nil
}

func (d *replicaDisk) Checkpoint(pos push.Position) error {
	time.Sleep(d.slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	if pos.Compare(d.mark) < 0 || pos.Compare(d.pos) <= 0 {
		return errors.New("checkpoint out of order")
	}
	d.mark, d.stable = pos, maps.Clone(d.over())
	return nil
}

func (d *replicaDisk) Barrier(pos push.Position) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	if pos.Compare(d.mark) < 0 || pos.Compare(d.pos) <= 0 {
		return errors.New("barrier out of order")
	}
	if d.complete {
		maps.Copy(d.content.here, d.layer)
	}
	d.complete, d.pos, d.copy, d.mark, d.layer, d.stable = true, pos, [16]byte{}, push.Position{}, nil, map[int64][]byte{}
	return nil
}

// crash is a power cut: of what wasn't durable some is lost, some is there, some is torn.
func (d *replicaDisk) crash(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt, d.applying = 0, false
	now := d.over()
	if now == nil {
		return
	}
	after := maps.Clone(d.stable)
	for _, x := range slices.Sorted(maps.Keys(now)) {
		b, old := now[x], d.stable[x]
		if _, was := d.stable[x]; was && (b == nil) == (old == nil) && bytes.Equal(b, old) {
			continue
		}
		switch r.IntN(3) {
		case 0:
			after[x] = b
		case 1:
			torn := make([]byte, block)
			copy(torn, b[:len(b)/2])
			if len(old) > 0 {
				copy(torn[block/2:], old[block/2:])
			}
			after[x] = torn
		}
	}
	if d.complete {
		d.layer = after
	} else {
		d.content.here = after
	}
	d.stable = maps.Clone(after)
}

// equals fails the test unless the disk is the content at pos.
func (d *replicaDisk) equals(t testing.TB, c *content, pos push.Position) {
	t.Helper()
	if !d.complete || d.pos != pos {
		t.Fatalf("the replica is at %v (whole: %v), want %v", d.pos, d.complete, pos)
	}
	look := maps.Clone(d.content.here)
	maps.Copy(look, c.here)
	for x := range look {
		a, b := d.content.block(x), c.block(x)
		if !bytes.Equal(pad(a), pad(b)) {
			t.Fatalf("block %d differs", x)
		}
	}
}

func pad(b []byte) []byte {
	if b == nil {
		return make([]byte, block)
	}
	return b
}

// index finds blocks by content.
type index map[[32]byte][]byte

func (i index) add(b []byte) { i[blake3.Sum256(b)] = b }

func (i index) Have(sum [32]byte) ([]byte, bool) {
	b, ok := i[sum]
	return b, ok
}

// pushed runs both ends to their ends.
func pushed(t testing.TB, a, b wire.Stream, h push.Hello, w push.Work, d *replicaDisk, x push.Index, st *[2]push.Stats) (sent, received error) {
	t.Helper()
	if st == nil {
		st = new([2]push.Stats)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		received = push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
			return push.Replica{Sink: d, Index: x}, d.state(), nil
		}, &st[1])
	})
	sent = push.Send(t.Context(), a, h, func(push.State, iter.Seq2[int64, int64]) (push.Work, error) { return w, nil }, push.Options{Stats: &st[0]})
	wg.Wait()
	return sent, received
}

// scatter is n different blocks of a disk of so many, sorted.
func scatter(r *rand.Rand, blocks, n int64) []int64 {
	m := map[int64]bool{}
	for int64(len(m)) < n {
		m[r.Int64N(blocks)] = true
	}
	return slices.Sorted(maps.Keys(m))
}
