package blockindex_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/app/blockindex"
	"tagalong.org/tagalong/app/diskmirror"
	"tagalong.org/tagalong/app/diskpush"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire/wiretest"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	block = blockindex.Block
	size  = 16 << 20
	mib   = 1 << 20
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noise is n bytes that nothing compresses.
func noise(seed uint64, n int) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
	return p
}

// pc is a device with some disks.
type pc struct {
	t     *testing.T
	index blockindex.Index
	disks map[string]*vmdisk.Store
	reads int
}

func newPC(t *testing.T) *pc { return &pc{t: t, disks: map[string]*vmdisk.Store{}} }

func (c *pc) options(vm string) vmdisk.Options {
	return vmdisk.Options{FS: vfs.NewMem(), BarrierEvery: -1, SaveEvery: -1, Seen: func(off int64, p []byte) { c.index.Learn(vm, off, p) }}
}

// owns makes an active disk with content.
func (c *pc) owns(vm string, content []byte) *vmdisk.Store {
	d, err := vmdisk.Create("disk", vmdisk.NewID(), size, c.options(vm))
	must(c.t, err)
	c.t.Cleanup(func() { must(c.t, d.Close()) })
	must(c.t, d.Activate(1))
	must(c.t, d.WriteAt(content, 0, true))
	c.disks[vm] = d
	return d
}

// copies makes an empty replica.
func (c *pc) copies(vm string, of *vmdisk.Store) {
	d, err := vmdisk.CreateReplica("disk", of.ID(), size, c.options(vm))
	must(c.t, err)
	c.t.Cleanup(func() { must(c.t, d.Close()) })
	c.disks[vm] = d
}

func (c *pc) read(vm string, p []byte, off int64) error {
	c.reads++
	if d := c.disks[vm]; d != nil {
		return d.Peek(p, off)
	}
	return errors.New("no such disk")
}

// push brings the disk of a VM to another device, as an engine does, and returns what it took.
func (c *pc) push(to *pc, vm string) (sent, found int64) {
	t := c.t
	t.Helper()
	from := c.disks[vm]
	cut, err := from.Cut(t.Context())
	must(t, err)
	a, b := wiretest.Pipe(t)
	var stats [2]push.Stats
	var received error
	var wg sync.WaitGroup
	wg.Go(func() {
		applier, err := to.disks[vm].Apply()
		if err != nil {
			received = err
			return
		}
		look := to.index.Look(!applier.State().Complete, to.read)
		defer look.Close()
		received = push.Receive(t.Context(), b, func(push.Hello) (push.Replica, push.State, error) {
			sink, err := diskpush.NewSink(applier)
			if err != nil {
				return push.Replica{}, push.State{}, err
			}
			sink.Seen = func(off int64, p []byte) { to.index.Learn(vm, off, p) }
			r := push.Replica{Sink: sink}
			if look != nil {
				r.Index = look
			}
			return r, push.State(diskmirror.State(applier.State())), nil
		}, &stats[1])
		received = errors.Join(received, applier.Close())
	})
	h := push.Hello{Target: replica.Target{VM: vm, Disk: replica.ID(from.ID()), Size: size, Term: 1}, Cut: push.Position(cut.Position())}
	err = push.Send(t.Context(), a, h, func(st push.State, holds iter.Seq2[int64, int64]) (push.Work, error) {
		there := diskpush.State(from, st)
		if there.Complete {
			if err := from.Reached("peer", there); err != nil {
				return push.Work{}, err
			}
		}
		lacks, exact := diskpush.Lacks(from, cut, "peer", there, alone{})
		return diskpush.Work(from, cut, cut.Size(), lacks, exact, holds), nil
	}, push.Options{Stats: &stats[0]})
	wg.Wait()
	must(t, errors.Join(err, received, cut.Close()))
	must(t, from.Reached("peer", to.disks[vm].ReplicaState()))
	to.same(from, vm)
	return stats[0].Sent.Load() + stats[0].Received.Load(), stats[1].Elsewhere.Load()
}

// alone is the history of a disk that nobody else has written.
type alone struct{}

func (alone) Has(vmdisk.Position) bool          { return true }
func (alone) Told(string) (diskpush.Told, bool) { return diskpush.Told{}, false }

// same fails the test unless a copy is the disk.
func (c *pc) same(d *vmdisk.Store, vm string) {
	c.t.Helper()
	a, b := make([]byte, size), make([]byte, size)
	must(c.t, d.ReadAt(a, 0))
	must(c.t, c.disks[vm].ReadAt(b, 0))
	if !bytes.Equal(a, b) {
		c.t.Fatal("the copy isn't the disk")
	}
}

// A file that was moved, and one that was copied, don't travel: the receiver has them.
func TestAMovedFile(t *testing.T) {
	home, office := newPC(t), newPC(t)
	content := noise(1, 8*mib)
	d := home.owns("work", content)
	office.copies("work", d)
	if sent, _ := home.push(office, "work"); sent < 8*mib {
		t.Fatalf("the first copy took %d bytes", sent)
	}
	must(t, d.WriteAt(content[2*mib:4*mib], 10*mib, false))
	must(t, d.WriteAt(make([]byte, 2*mib), 2*mib, false))
	must(t, d.WriteAt(noise(2, mib), 14*mib, true))
	sent, found := home.push(office, "work")
	if found != 2*mib {
		t.Errorf("of the moved file %d bytes were found", found)
	}
	if sent > mib+mib/20 {
		t.Errorf("%d bytes were sent for one new MiB", sent)
	}
	t.Logf("2 MiB moved, 1 MiB new: %d bytes over the line", sent)
}

// The first copy of a VM that was cloned from another takes next to nothing where that is, once its disk was read to record its hashes.
func TestAClonedVM(t *testing.T) {
	home, office := newPC(t), newPC(t)
	content := noise(3, 8*mib)
	d := home.owns("work", content)
	office.copies("work", d)
	home.push(office, "work")
	office.index = blockindex.Index{} // what is learned from pushes doesn't count here
	must(t, office.disks["work"].Record(t.Context()))
	clone := home.owns("play", append(content[:7*mib:7*mib], noise(4, mib/2)...))
	office.copies("play", clone)
	sent, found := home.push(office, "play")
	if found != 7*mib {
		t.Errorf("%d bytes were found, want %d", found, 7*mib)
	}
	if sent > mib/2+7*mib/block*32+64<<10 {
		t.Errorf("%d bytes were sent for half a MiB that is new", sent)
	}
	t.Logf("a clone of 7 MiB with half a MiB of its own: %d bytes over the line", sent)
}

// An index that is wrong costs bytes, and nothing else.
func TestAWrongIndex(t *testing.T) {
	home, office := newPC(t), newPC(t)
	content := noise(5, 4*mib)
	d := home.owns("work", content)
	office.copies("work", d)
	home.push(office, "work")
	office.index.Learn("gone", 0, noise(6, mib))
	office.index.Learn("work", 0, noise(7, mib)) // it has something else there
	office.index.Learn("work", size-block, noise(8, 2*block))
	must(t, d.WriteAt(noise(6, mib), 8*mib, false))
	must(t, d.WriteAt(noise(7, mib), 9*mib, false))
	must(t, d.WriteAt(noise(8, 2*block), 10*mib, true))
	if sent, found := home.push(office, "work"); found != 0 || sent < 2*mib {
		t.Errorf("%d bytes were found, %d sent", found, sent)
	}
}

// Of what doesn't fit, what follows a block that is still known is found.
func TestWhatFollowsIsFound(t *testing.T) {
	const many = 4 << 10
	all := make([][]byte, many)
	var x blockindex.Index
	for i := range all {
		all[i] = noise(uint64(i)+100, block)
		if i%16 == 5 {
			x.Learn("a", int64(i)*block, all[i])
		}
	}
	l := x.Look(false, func(disk string, p []byte, off int64) error {
		if disk != "a" || off < 0 || off/block >= many {
			return errors.New("nothing there")
		}
		copy(p, all[off/block])
		return nil
	})
	found := 0
	for _, b := range all {
		p, ok := l.Have(blake3.Sum256(b))
		if ok && !bytes.Equal(p, b) {
			t.Fatal("another block was found")
		}
		if ok {
			found++
		}
	}
	l.Close()
	if want := many - 5; found != want {
		t.Errorf("%d of %d were found", found, want)
	}
}

// Who never finds anything is hardly asked any more, but for new disks.
func TestAUselessIndexRests(t *testing.T) {
	var x blockindex.Index
	if x.Look(true, nil) != nil {
		t.Error("an empty index looks")
	}
	x.Learn("a", 0, noise(1, block))
	miss := func(string, []byte, int64) error { return errors.New("nothing") }
	l := x.Look(false, miss)
	for i := range 5000 {
		if _, ok := l.Have(blake3.Sum256(noise(uint64(i)+10, block))); ok {
			t.Fatal("found what nobody has")
		}
	}
	l.Close()
	looks := 0
	for range 160 {
		if l := x.Look(false, miss); l != nil {
			looks++
			l.Close()
		}
	}
	if looks != 10 {
		t.Errorf("it looked %d times of 160", looks)
	}
	if x.Look(true, miss) == nil {
		t.Error("it doesn't look for a disk that isn't here")
	}
}

// What is known is there again after a restart; what can't be read is as if it had never been.
func TestKeeping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blocks")
	content := noise(9, 64*block)
	var x blockindex.Index
	must(t, x.Load(path))
	must(t, x.Save(path))
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("an empty index was kept: %v", err)
	}
	x.Learn("a", 3*block, content)
	must(t, x.Save(path))
	has := func(x *blockindex.Index) bool {
		l := x.Look(true, func(disk string, p []byte, off int64) error {
			if off < 3*block || off >= 67*block {
				return errors.New("nothing there")
			}
			copy(p, content[off-3*block:])
			return nil
		})
		if l == nil {
			return false
		}
		defer l.Close()
		_, ok := l.Have(blake3.Sum256(content[block : 2*block]))
		return ok
	}
	var y blockindex.Index
	must(t, y.Load(path))
	if !has(&y) {
		t.Error("what was kept isn't known")
	}
	good, err := os.ReadFile(path)
	must(t, err)
	for name, bad := range map[string][]byte{
		"empty": {}, "cut short": good[:len(good)/2], "flipped": append(bytes.Clone(good[:len(good)-100]), bytes.Repeat([]byte{7}, 100)...),
		"newer": append([]byte("TgBI\x02"), good[5:]...), "longer": append(bytes.Clone(good), 1),
	} {
		must(t, os.WriteFile(path, bad, 0o600))
		var z blockindex.Index
		if err := z.Load(path); !errors.Is(err, blockindex.ErrFile) || has(&z) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
