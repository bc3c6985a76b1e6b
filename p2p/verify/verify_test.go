package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	leaf = verify.LeafSize
	// The disks have two spans, and an odd end.
	diskSize = verify.SpanSize + verify.RegionSize + leaf + 3*4096
	lastLeaf = diskSize / leaf
)

// disk is a sparse disk in memory, by leaves: what isn't there is a hole.
type disk struct {
	mu       sync.Mutex
	leaves   map[int64][]byte
	recorded map[int64][16]byte
	broken   map[int64]bool // its drive doesn't give these
	position verify.Position
	reads    int64
	fail     error
}

func newDisk() *disk {
	return &disk{leaves: map[int64][]byte{}, recorded: map[int64][16]byte{}, broken: map[int64]bool{}}
}

func sizeOf(l int64) int64 { return min(leaf, diskSize-l*leaf) }

func filled(l int64, c byte) []byte { return bytes.Repeat([]byte{c}, int(sizeOf(l))) }

func hash(p []byte) [16]byte {
	sum := blake3.Sum256(p)
	return [16]byte(sum[:16])
}

// put changes a leaf as a write does: what was recorded doesn't count any more.
func (d *disk) put(l int64, c byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaves[l] = filled(l, c)
	delete(d.recorded, l)
	delete(d.broken, l)
}

// rot changes a leaf by itself.
func (d *disk) rot(l int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := filled(l, 0)
	copy(p, d.leaves[l])
	p[len(p)/2] ^= 0x40
	d.leaves[l] = p
}

// record records a leaf as it is now.
func (d *disk) record(l int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.leaves[l]
	if p == nil {
		p = filled(l, 0)
	}
	d.recorded[l] = hash(p)
}

func (d *disk) get(l int64) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.leaves[l]; p != nil {
		return bytes.Clone(p)
	}
	return filled(l, 0)
}

func (d *disk) ReadAt(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off%leaf != 0 || int64(len(p)) != sizeOf(off/leaf) {
		return fmt.Errorf("read of %d bytes at %d", len(p), off)
	}
	if d.broken[off/leaf] {
		return fmt.Errorf("no: %w", verify.ErrUnreadable)
	}
	d.reads++
	clear(p)
	copy(p, d.leaves[off/leaf])
	return d.fail
}

func (d *disk) Extents(off, n int64) (out []verify.Extent, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for end := off + n; off < end; {
		to := min(end, (off/leaf+1)*leaf)
		out = append(out, verify.Extent{Len: to - off, Hole: d.leaves[off/leaf] == nil && !d.broken[off/leaf]})
		off = to
	}
	return out, nil
}

func (d *disk) Recorded(off int64) ([16]byte, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum, ok := d.recorded[off/leaf]
	return sum, ok, nil
}

func (d *disk) Position() verify.Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.position
}

// fleet is an owner's disk that is mirrored to copies, each of which is behind until it is pulled.
type fleet struct {
	t *testing.T
	*disk
	copies map[string]*follower

	fm    sync.Mutex
	looks map[*look]bool
	// wrote, if not nil, is called when somebody is about to be compared.
	wrote   func(off int64)
	resends map[string]int
	mends   int
}

type follower struct {
	*disk
	queue    []func()
	lacks    []lacking        // by each of the queue
	seq, at  int              // of what was queued, and applied
	last     map[int64]int    // when a leaf was queued last
	detached bool             // nothing feeds it: it stands still
	unknown  bool             // and nothing is known of it
	deaf     bool             // forgets what is sent again
	told     *verify.Position // where the owner believes that it is, if it is elsewhere
	stubborn bool             // the owner never learns better
	pins     func()
	patched  int
}

func newFleet(t *testing.T, names ...string) *fleet {
	f := &fleet{t: t, disk: newDisk(), copies: map[string]*follower{}, looks: map[*look]bool{}, resends: map[string]int{}}
	for _, name := range names {
		f.copies[name] = &follower{disk: newDisk(), last: map[int64]int{}}
	}
	return f
}

// write is the guest's.
func (f *fleet) write(l int64, c byte) {
	f.fm.Lock()
	defer f.fm.Unlock()
	f.put(l, c)
	for k := range f.looks {
		k.written[l] = true
	}
	for _, x := range f.copies {
		x.queue = append(x.queue, func() { x.put(l, c) })
		x.lacks = append(x.lacks, lacking{l, 0xffff})
		x.seq++
		x.last[l] = x.seq
	}
}

// pull applies what is queued for a copy, as far as n.
func (x *follower) pull(n int) {
	for ; n > 0 && len(x.queue) > 0; n-- {
		x.queue[0]()
		x.queue, x.lacks = x.queue[1:], x.lacks[1:]
		x.at++
		x.mu.Lock()
		x.position.Barrier++
		x.mu.Unlock()
	}
}

type look struct {
	f       *fleet
	written map[int64]bool
}

func (f *fleet) Look() (verify.Look, error) {
	f.fm.Lock()
	defer f.fm.Unlock()
	k := &look{f, map[int64]bool{}}
	f.looks[k] = true
	return k, nil
}

func (k *look) Reached(_ context.Context, name string, off, _ int64) (bool, error) {
	k.f.fm.Lock()
	defer k.f.fm.Unlock()
	x := k.f.copies[name]
	if x.detached || x.unknown {
		return false, fmt.Errorf("%s: %w", name, verify.ErrDetached)
	}
	// No farther than it must be.
	for !k.written[off/leaf] && x.at < x.last[off/leaf] {
		x.pull(1)
	}
	return !k.written[off/leaf], nil
}

func (k *look) Written(off, _ int64) (bool, error) {
	if k.f.wrote != nil {
		k.f.wrote(off)
	}
	k.f.fm.Lock()
	defer k.f.fm.Unlock()
	return k.written[off/leaf], nil
}

func (k *look) Close() {
	k.f.fm.Lock()
	defer k.f.fm.Unlock()
	delete(k.f.looks, k)
}

func (f *fleet) Resend(name string, ranges [][2]int64) error {
	f.fm.Lock()
	defer f.fm.Unlock()
	for _, r := range ranges {
		if r[1] != sizeOf(r[0]/leaf) {
			return fmt.Errorf("%d bytes at %d", r[1], r[0])
		}
		f.resend(name, r[0]/leaf)
	}
	return nil
}

func (f *fleet) resend(name string, l int64) {
	f.resends[name]++
	x, p := f.copies[name], f.get(l)
	x.queue = append(x.queue, func() {
		if x.deaf {
			return
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.leaves[l] = p
		delete(x.recorded, l)
		delete(x.broken, l)
	})
	x.lacks = append(x.lacks, lacking{l, 0xffff})
	x.seq++
	x.last[l] = x.seq
}

func (f *fleet) Mend(p []byte, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if want, ok := f.recorded[off/leaf]; !ok || hash(p) != want {
		return errors.New("not what was recorded")
	}
	f.mends++
	f.leaves[off/leaf] = bytes.Clone(p)
	delete(f.broken, off/leaf)
	return nil
}

// fetch is Options.Fetch.
func (f *fleet) fetch(_ context.Context, off, n int64, sum [16]byte) ([]byte, error) {
	for _, x := range f.copies {
		p := make([]byte, sizeOf(off/leaf))
		if err := x.ReadAt(p, off); err == nil && hash(p) == sum {
			return p, nil
		}
	}
	return nil, errors.New("nobody has it")
}

func hello(key verify.Key) verify.Hello {
	return verify.Hello{Target: verify.Target{VM: "vm", Disk: replica.ID{1}, Size: diskSize, Term: 7}, Key: key}
}

// open makes a session with a replica, over the real protocol.
func open(t *testing.T, key verify.Key, r verify.Replica) *verify.Session {
	t.Helper()
	a, b := wiretest.Pipe(t)
	done := make(chan error, 1)
	go func() {
		done <- verify.Serve(t.Context(), b, func(h verify.Hello) (verify.Replica, verify.State, error) {
			if h.Size != diskSize || h.Key != key {
				return nil, verify.State{}, errors.New("another disk")
			}
			return r, verify.State{Complete: true}, nil
		})
	}()
	s, st, err := verify.Open(t.Context(), a, hello(key))
	if err != nil || !st.Complete {
		t.Fatal(st, err)
	}
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return s
}

// round has all copies compared.
func (f *fleet) round(change func(*verify.Options)) (*verify.Result, error) {
	o := verify.Options{Disk: f, Size: diskSize, Copies: map[string]verify.Copy{}, Fetch: f.fetch}
	_, _ = rand.Read(o.Key[:])
	for name, x := range f.copies {
		o.Copies[name] = open(f.t, o.Key, x)
	}
	if change != nil {
		change(&o)
	}
	return verify.Round(f.t.Context(), o)
}

func (f *fleet) mustRound() *verify.Result {
	f.t.Helper()
	r, err := f.round(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// settle has all copies apply everything.
func (f *fleet) settle() {
	for _, x := range f.copies {
		x.pull(len(x.queue))
	}
}
