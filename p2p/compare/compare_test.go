package compare_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a sparse disk in memory: what isn't in blocks is a hole.
type disk struct {
	mu      sync.Mutex
	size    int64
	version int // that the owner speaks; 0: the newest
	blocks  map[int64][]byte
	lacks   map[int64]bool // what Next tells; nil: all
	equal   map[int64]bool // what Equal said
	reads   int64
	fail    error // of the reads
	each    func()
}

func newDisk(size int64) *disk {
	return &disk{size: size, blocks: map[int64][]byte{}, equal: map[int64]bool{}}
}

func (d *disk) put(x int64, c byte) { d.blocks[x] = bytes.Repeat([]byte{c}, compare.Block) }

func (d *disk) ReadAt(p []byte, off int64) error {
	if d.each != nil {
		d.each()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off%compare.Block != 0 || len(p)%compare.Block != 0 || off+int64(len(p)) > d.size {
		return fmt.Errorf("read of %d bytes at %d", len(p), off)
	}
	clear(p)
	for x := off / compare.Block; x < (off+int64(len(p)))/compare.Block; x++ {
		copy(p[x*compare.Block-off:], d.blocks[x])
	}
	d.reads += int64(len(p))
	return d.fail
}

// Extents goes at most 64 MiB far.
func (d *disk) Extents(off, n int64) (out []compare.Extent, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n = min(n, 64<<20)
	if len(d.blocks) == 0 {
		return []compare.Extent{{Len: n, Hole: true}}, nil
	}
	for end := off + n; off < end; {
		to := min(end, (off/compare.Block+1)*compare.Block)
		hole := d.blocks[off/compare.Block] == nil
		if l := len(out) - 1; l >= 0 && out[l].Hole == hole {
			out[l].Len += to - off
		} else {
			out = append(out, compare.Extent{Len: to - off, Hole: hole})
		}
		off = to
	}
	return out, nil
}

func (d *disk) Next(off int64) (int64, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lacks == nil {
		return off, d.size - off
	}
	for x := off / compare.Block; x < d.size/compare.Block; x++ {
		if d.lacks[x] {
			return max(off, x*compare.Block), (x+1)*compare.Block - max(off, x*compare.Block)
		}
	}
	return d.size, 0
}

func (d *disk) Equal(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || n <= 0 || off%compare.Block != 0 || n%compare.Block != 0 || off+n > d.size {
		return fmt.Errorf("%d bytes at %d are equal", n, off)
	}
	if n > 1<<30 {
		return nil // the big disk's holes, which nobody looks at
	}
	for x := off / compare.Block; x < (off+n)/compare.Block; x++ {
		d.equal[x] = true
	}
	return nil
}

// unequal are the blocks that weren't told to be equal.
func (d *disk) unequal() (out []int64) {
	for x := range d.size / compare.Block {
		if !d.equal[x] {
			out = append(out, x)
		}
	}
	return out
}

func hello(size int64) compare.Hello {
	return compare.Hello{Target: compare.Target{VM: "vm", Disk: replica.ID{1}, Size: size, Term: 7}}
}

var whole = compare.State{Complete: true, Position: replica.Position{Term: 4, Barrier: 9}}

// compared runs a comparison between two disks.
func compared(ctx context.Context, a, b compare.Stream, mine *disk, theirs compare.Reader, stats [2]*compare.Stats) (ran, served error) {
	done := make(chan error, 1)
	go func() {
		done <- compare.Serve(ctx, b, func(compare.Hello) (compare.Reader, compare.State, error) { return theirs, whole, nil }, stats[1])
	}()
	h := hello(mine.size)
	h.Version = mine.version
	ran = compare.Run(ctx, a, h, func(st compare.State) (compare.Disk, error) {
		if st != whole {
			return nil, fmt.Errorf("state %+v", st)
		}
		return mine, nil
	}, stats[0])
	return ran, <-done
}

// Exactly the blocks that differ are left, whatever is data, hole or written zeros on either side, over both kinds of streams.
func TestFindsWhatDiffers(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				size := rapid.Int64Range(1, 5*1024/2).Draw(rt, "blocks") * compare.Block
				mine, theirs := newDisk(size), newDisk(size)
				mine.version = rapid.IntRange(0, 1).Draw(rt, "version")
				for range rapid.IntRange(0, 40).Draw(rt, "runs") {
					at, n := rapid.Int64Range(0, size/compare.Block-1).Draw(rt, "at"), rapid.Int64Range(1, 300).Draw(rt, "n")
					c, who := rapid.Byte().Draw(rt, "content"), rapid.IntRange(0, 5).Draw(rt, "who")
					for x := at; x < min(at+n, size/compare.Block); x++ {
						if who != 0 {
							mine.put(x, c)
						}
						if who != 1 {
							theirs.put(x, c)
						}
					}
				}
				if rapid.Bool().Draw(rt, "some") {
					mine.lacks = map[int64]bool{}
					for range rapid.IntRange(0, 20).Draw(rt, "lacking") {
						mine.lacks[rapid.Int64Range(0, size/compare.Block-1).Draw(rt, "lacks")] = true
					}
				}
				a, b := pair(t)
				if ran, served := compared(t.Context(), a, b, mine, theirs, [2]*compare.Stats{}); ran != nil || served != nil {
					rt.Fatalf("run: %v, serve: %v", ran, served)
				}
				zeros := make([]byte, compare.Block)
				content := func(d *disk, x int64) []byte {
					if p := d.blocks[x]; p != nil {
						return p
					}
					return zeros
				}
				for x := range size / compare.Block {
					same := bytes.Equal(content(mine, x), content(theirs, x))
					if mine.equal[x] && !same {
						rt.Fatalf("block %d was taken for equal", x)
					}
					if !mine.equal[x] && same && (mine.lacks == nil || mine.lacks[x]) {
						rt.Fatalf("block %d was taken for different", x)
					}
				}
			})
		})
	}
}

// An almost empty disk of 16 TiB costs a few bytes: holes are neither read nor told one by one.
func TestHolesAreFree(t *testing.T) {
	const size = 16 << 40
	mine, theirs := newDisk(size), newDisk(size)
	a, b := wiretest.TCP(t)
	stats := [2]*compare.Stats{{}, {}}
	if ran, served := compared(t.Context(), a, b, mine, theirs, stats); ran != nil || served != nil {
		t.Fatalf("run: %v, serve: %v", ran, served)
	}
	if mine.reads+theirs.reads > 0 || stats[0].Sent.Load()+stats[0].Received.Load() > 100 || stats[0].Compared.Load() != size {
		t.Errorf("%d and %d bytes read, %d sent, %d received, %d compared", mine.reads, theirs.reads, stats[0].Sent.Load(), stats[0].Received.Load(), stats[0].Compared.Load())
	}
}

// What crosses the network is small beside what is compared: a sum a region, and tags for the regions that differ.
func TestTraffic(t *testing.T) {
	const size = 64 << 20
	mine, theirs := newDisk(size), newDisk(size)
	for x := range int64(size / compare.Block) {
		mine.put(x, byte(x%250+1))
		theirs.put(x, byte(x%250+1))
	}
	theirs.put(5000, 0xff)
	a, b := wiretest.TCP(t)
	stats := [2]*compare.Stats{{}, {}}
	if ran, served := compared(t.Context(), a, b, mine, theirs, stats); ran != nil || served != nil {
		t.Fatalf("run: %v, serve: %v", ran, served)
	}
	if got := mine.unequal(); !slices.Equal(got, []int64{5000}) {
		t.Fatalf("differ: %v", got)
	}
	if got := stats[0].Received.Load(); got > 16*17+9+64*16+129+16*16+5 {
		t.Errorf("%d bytes came", got)
	}
	if stats[0].Received.Load() != stats[1].Sent.Load() || stats[1].Received.Load() != stats[0].Sent.Load() {
		t.Errorf("sent %d and %d, received %d and %d", stats[0].Sent.Load(), stats[1].Sent.Load(), stats[1].Received.Load(), stats[0].Received.Load())
	}
	if stats[0].Compared.Load() != size || stats[1].Read.Load() != size+compare.Region+compare.Leaf {
		t.Errorf("%d compared, the replica read %d", stats[0].Compared.Load(), stats[1].Read.Load())
	}
}

// A long way must not cost a round trip for each question: many are open at once.
func TestAsksAhead(t *testing.T) {
	const size = 400 * compare.Region
	mine, theirs := newDisk(size), newDisk(size)
	mine.lacks = map[int64]bool{}
	for r := int64(0); r < 400; r += 2 {
		mine.lacks[r*1024] = true
		theirs.put(r*1024, 1)
	}
	a, b := wiretest.TCP(t)
	asked := make(chan struct{})
	theirs.each = func() { <-asked } // the first answer waits until all was asked
	counted := &counting{Stream: b, want: 200 * 9, reached: asked}
	if ran, served := compared(t.Context(), a, counted, mine, theirs, [2]*compare.Stats{}); ran != nil || served != nil {
		t.Fatalf("run: %v, serve: %v", ran, served)
	}
}

// counting closes reached when so many bytes have arrived at its end, read or not.
type counting struct {
	compare.Stream
	want    int
	reached chan struct{}
	once    sync.Once
	buf     bytes.Buffer
	started bool
}

func (c *counting) Read(p []byte) (int, error) {
	if !c.started {
		// The hello goes through as it comes.
		c.started = true
		h := make([]byte, 4)
		if _, err := io.ReadFull(c.Stream, h); err != nil {
			return 0, err
		}
		n := int(h[0])<<24 | int(h[1])<<16 | int(h[2])<<8 | int(h[3])
		body := make([]byte, n)
		if _, err := io.ReadFull(c.Stream, body); err != nil {
			return 0, err
		}
		c.buf.Write(h)
		c.buf.Write(body)
	}
	if c.buf.Len() == 0 {
		select {
		case <-c.reached:
		default:
			if _, err := io.CopyN(&c.buf, c.Stream, int64(c.want)); err != nil {
				return 0, err
			}
			c.once.Do(func() { close(c.reached) })
		}
	}
	if c.buf.Len() > 0 {
		return c.buf.Read(p)
	}
	return c.Stream.Read(p)
}

func TestRefusals(t *testing.T) {
	a, b := wiretest.TCP(t)
	done := make(chan error, 1)
	go func() {
		done <- compare.Serve(t.Context(), b, func(compare.Hello) (compare.Reader, compare.State, error) {
			return nil, compare.State{}, &compare.Refusal{Code: replica.RefuseBusy, Text: "not yet"}
		}, nil)
	}()
	err := compare.Run(t.Context(), a, hello(1<<20), nil, nil)
	var r *compare.Refusal
	if !errors.As(err, &r) || r.Code != replica.RefuseBusy || r.Text != "not yet" {
		t.Errorf("run: %v", err)
	}
	if err := <-done; !errors.As(err, &r) {
		t.Errorf("serve: %v", err)
	}
	for _, h := range []compare.Hello{{}, hello(0), hello(4095), hello(compare.MaxSize + compare.Block)} {
		a, _ := wiretest.TCP(t)
		if err := compare.Run(t.Context(), a, h, nil, nil); !errors.Is(err, compare.ErrHello) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// Both ends end when one can't read, and the owner is told why; when the owner's disk refuses; when ctx ends.
func TestFailures(t *testing.T) {
	broken := errors.New("the platter fell out")
	mine, theirs := newDisk(8<<20), newDisk(8<<20)
	mine.put(1, 1)
	theirs.put(1, 1)
	theirs.fail = broken
	a, b := wiretest.TCP(t)
	ran, served := compared(t.Context(), a, b, mine, theirs, [2]*compare.Stats{})
	if !errors.Is(ran, compare.ErrReplica) || !strings.Contains(ran.Error(), broken.Error()) || !errors.Is(served, broken) {
		t.Errorf("run: %v, serve: %v", ran, served)
	}
	theirs.fail, mine.fail = nil, broken
	a, b = wiretest.TCP(t)
	if ran, served = compared(t.Context(), a, b, mine, theirs, [2]*compare.Stats{}); !errors.Is(ran, broken) || served == nil {
		t.Errorf("run: %v, serve: %v", ran, served)
	}
	mine.fail = nil
	gone := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	theirs.each = func() { cancel(gone) }
	a, b = wiretest.TCP(t)
	if ran, served = compared(ctx, a, b, mine, theirs, [2]*compare.Stats{}); !errors.Is(ran, gone) || !errors.Is(served, gone) {
		t.Errorf("run: %v, serve: %v", ran, served)
	}
	if mine.equal[1] {
		t.Error("something was taken for equal that nobody compared")
	}
}

// The replica waits for an owner whose disk is slow, or that has much to read for one answer, for as long as the connection lasts.
func TestSlowOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const regions = 40
		mine, theirs := newDisk(regions*compare.Region), newDisk(regions*compare.Region)
		for r := range int64(regions) {
			mine.put(r*1024, 1)
			theirs.put(r*1024, 1)
		}
		theirs.put(30*1024, 2)
		mine.each = func() { time.Sleep(3 * time.Minute) }
		a, b := wiretest.Pipe(t)
		if ran, served := compared(t.Context(), a, b, mine, theirs, [2]*compare.Stats{}); ran != nil || served != nil {
			t.Fatalf("run: %v, serve: %v", ran, served)
		}
		if got := mine.unequal(); !slices.Equal(got, []int64{30 * 1024}) {
			t.Errorf("differ: %v", got)
		}
	})
}
