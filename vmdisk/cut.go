package vmdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// Cut is the disk as it was at one position, readable while the disk changes. What is about to be overwritten is kept
// for it first: in memory, then in a scratch file. It follows the disk through changes of its role (activation, a
// term given away), and ends with it (ErrClosed).
//
// A cut never makes a write fail, nor wait for longer than the copying of what it overwrites: if old content can't be read or
// kept, or if the guest needs the space, the cut is lost, and all of its calls say ErrCutLost from then on.
//
// Who has read a part should Release it, so that it isn't kept any more, and must Close the cut in the end. Methods may be
// called from any goroutine.
//
// Memory: up to 16 MiB for all cuts of a disk together, and block sets of at most 64 MiB a TiB and cut, usually far less.
type Cut struct {
	d      *Store
	pos    Position
	size   int64 // bytes
	number uint64
	feed   *Feed  // whose it is, if it is a feed's
	spare  uint64 // how many barrier numbers that needs before pos

	// io is held for reading by those who use the scratch file, and for writing to make and to remove it.
	io   sync.RWMutex
	file vfs.File

	// Each block is in one of the sets, or was released. Blocks only go from left to kept or holes, and from all to
	// none: so who reads the disk, and then finds a block still in left, has read the cut.
	mu    sync.Mutex
	left  *blockset.Set   // the disk has it
	kept  *blockset.Set   // it was overwritten, and its content is kept
	holes *blockset.Set   // it was overwritten, and was all zeros
	slots map[int64]int32 // the blocks of kept that are in memory; the others are in the file
	solid [2]int64        // the bytes of the disk, from and to, that were found to be no hole last
	err   error           // final
}

var _ Reader = (*Cut)(nil)

// Cut takes a cut: of an active disk at its next barrier, which this makes like Flush does (if nothing was written
// since the last one, at that), of any other complete disk at its position. The caller must Close it. ctx only says whether to
// begin. Errors: ErrClosed, ErrFailed, ErrIncomplete, ErrHydrating.
func (d *Store) Cut(ctx context.Context) (*Cut, error) {
	c := d.newCut()
	err := ctx.Err()
	for taken := false; err == nil && !taken; {
		if taken, err = d.cutOwned(c); err == nil && !taken {
			taken, err = d.cutQuiet(c)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cut: %w", errors.Join(err, c.Close()))
	}
	return c, nil
}

// newCut is a cut that isn't taken yet.
func (d *Store) newCut() *Cut {
	c := &Cut{
		d: d, left: blockset.New(blockset.Most), kept: blockset.New(blockset.Most), holes: blockset.New(blockset.Most),
		slots: map[int64]int32{},
	}
	c.grow()
	return c
}

// grow makes it a cut of a disk as large as the disk is now. The cut isn't taken yet.
func (c *Cut) grow() {
	if size := c.d.Size(); size > c.size {
		c.left.Add(c.size/Block, size/Block)
		c.size = size
	}
}

// cutOwned takes a cut of an active disk; it says false if the disk isn't active.
func (d *Store) cutOwned(c *Cut) (bool, error) {
	r := &round{done: make(chan struct{}), cut: c}
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	r.err = d.runRound(r)
	close(r.done) // feeds that got the barrier wait for it
	return r.taken, cmp.Or(r.err, r.cutErr)
}

// cutQuiet takes a cut of a disk that isn't active; it says false if it is.
func (d *Store) cutQuiet(c *Cut) (bool, error) {
	d.rd.Lock()
	defer d.rd.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.active {
		return false, nil
	}
	err := d.addCut(c, d.position)
	return err == nil, err
}

// Position that the cut is the disk at.
func (c *Cut) Position() Position { return c.pos }

// Size of the disk in bytes, as it was at the cut.
func (c *Cut) Size() int64 { return c.size }

// ReadAt is Reader.ReadAt. Errors: ErrCutLost, ErrClosed, ErrReleased, ErrRange, those of the files.
func (c *Cut) ReadAt(p []byte, off int64) error {
	err := inside(off, int64(len(p)), c.size)
	for len(p) > 0 && err == nil {
		var n int
		n, err = c.read(p[:min(len(p), MaxOp)], off)
		p, off = p[n:], off+int64(n)
	}
	if err != nil {
		return fmt.Errorf("read cut: %w", err)
	}
	return nil
}

// where says where a block is.
type where int

const (
	onDisk   where = 0
	inMemory where = 1
	inFile   where = 2
	nowhere  where = 3 // a hole
)

// find says where the block a is, and up to where, at most b, the blocks that follow are there too. The caller holds mu.
func (c *Cut) find(a, b int64) (w where, end int64, err error) {
	switch {
	case c.err != nil:
		return 0, a, c.err
	case c.left.Has(a):
		return onDisk, within(c.left, a, b, false), nil
	case c.holes.Has(a):
		return nowhere, within(c.holes, a, b, false), nil
	case !c.kept.Has(a):
		return 0, a, fmt.Errorf("block %d: %w", a, ErrReleased)
	}
	if _, ok := c.slots[a]; ok {
		return inMemory, a + 1, nil
	}
	for end = a + 1; end < b && c.kept.Has(end); end++ {
		if _, ok := c.slots[end]; ok {
			break
		}
	}
	return inFile, end, nil
}

// read reads a part of p, from its beginning, and says how much; that may be nothing when the disk changed meanwhile.
func (c *Cut) read(p []byte, off int64) (int, error) {
	a, b := off/Block, (off+int64(len(p))+Block-1)/Block
	c.mu.Lock()
	w, end, err := c.find(a, b)
	if err == nil {
		p = p[:min(int64(len(p)), end*Block-off)]
	}
	if err == nil && w == inMemory {
		copy(p, c.d.cuts.mem.at(c.slots[a])[off%Block:])
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case w == nowhere:
		clear(p)
		return len(p), nil
	case w == inMemory:
		return len(p), nil
	case w == inFile:
		err = c.readScratch(p, off)
	default:
		err = c.d.peek(p, off)
	}
	// What was read is right as far as it is still where it was.
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if err != nil {
		return 0, err
	}
	set := c.kept
	if w == onDisk {
		set = c.left
	}
	return max(0, min(len(p), int(within(set, a, end, false)*Block-off))), nil
}

func (c *Cut) readScratch(p []byte, off int64) error {
	c.io.RLock()
	defer c.io.RUnlock()
	if c.file == nil {
		return ErrClosed // find says why
	}
	return readFull(c.file, p, off)
}

// solidAhead is how far is looked for a hole, in bytes, where there was none before: to find the next one a file system goes through all that it keeps of
// what lies between, so that to ask anew for each part of a full disk takes the square of its size. That there is no hole is a safe answer for ever.
const solidAhead = 1 << 30

// Extents is Reader.Extents. It ends before what was released. Errors are those of ReadAt.
func (c *Cut) Extents(off, n int64) ([]Extent, error) {
	out, err := c.extents(off, n)
	if err != nil && len(out) == 0 {
		return nil, fmt.Errorf("extents of cut: %w", err)
	}
	return out, nil
}

func (c *Cut) extents(off, n int64) (out []Extent, err error) {
	if err := inside(off, n, c.size); err != nil {
		return nil, err
	}
	add := func(n int64, hole bool) {
		if last := len(out) - 1; last >= 0 && out[last].Hole == hole {
			out[last].Len += n
		} else {
			out = append(out, Extent{n, hole})
		}
		off += n
	}
	for stop := off + n; off < stop && len(out) < maxExtents; {
		c.mu.Lock()
		w, end, err := c.find(off/Block, (stop+Block-1)/Block)
		solid := c.solid
		c.mu.Unlock()
		if err != nil {
			return out, err
		}
		run := min(end*Block, stop) - off
		if w != onDisk {
			add(run, w == nowhere)
			continue
		}
		if off >= solid[0] && off < solid[1] {
			add(min(run, solid[1]-off), false)
			continue
		}
		ask := run
		if off == solid[1] {
			ask = max(run, min(solidAhead, c.size-off))
		}
		there, err := c.d.Extents(off, ask)
		if err != nil {
			return out, err
		}
		if !there[0].Hole {
			solid = [2]int64{off, off + there[0].Len}
		}
		// What was a hole may have been written since: it still was one for the cut, but only as far as the disk has it.
		c.mu.Lock()
		c.solid = solid
		if c.err == nil {
			end = within(c.left, off/Block, end, false)
		}
		c.mu.Unlock()
		for _, e := range there {
			if rest := min(end*Block, stop) - off; rest > 0 {
				add(min(e.Len, rest), e.Hole)
			}
		}
	}
	return out, nil
}

// Release says that the whole blocks among the n bytes at off aren't needed any more: they aren't kept from now on, what was
// kept is given back, and reading them is ErrReleased.
func (c *Cut) Release(off, n int64) {
	if inside(off, n, c.size) != nil {
		return // nothing of the disk is there
	}
	for a, b := (off+Block-1)/Block, (off+n)/Block; a < b; {
		end := min(b, (a/blockset.ChunkBlocks+1)*blockset.ChunkBlocks)
		c.release(a, end)
		a = end
	}
}

// Want releases all blocks that aren't in s, which stays the caller's.
func (c *Cut) Want(s *blockset.Set) {
	for x, end := int64(0), c.size/Block; x < end; {
		a := min(s.Next(x, false), end)
		x = min(s.Next(a, true), end)
		c.Release(a*Block, (x-a)*Block)
	}
}

func (c *Cut) release(a, b int64) {
	var filed [][2]int64
	c.mu.Lock()
	if c.err == nil {
		for x := within(c.kept, a, b, true); x < b; x = within(c.kept, x, b, true) {
			w, end, _ := c.find(x, b)
			if w == inMemory {
				c.d.cuts.mem.put(c.slots[x])
				delete(c.slots, x)
			} else {
				filed = append(filed, [2]int64{x, end})
			}
			x = end
		}
		c.left.Remove(a, b)
		c.kept.Remove(a, b)
		c.holes.Remove(a, b)
	}
	c.mu.Unlock()
	c.io.RLock()
	defer c.io.RUnlock()
	for _, run := range filed {
		if c.file != nil {
			_ = c.file.Punch(run[0]*Block, (run[1]-run[0])*Block) // if that fails the space comes back with the file
		}
	}
}

// Close ends the cut and gives back what was kept. It may be called more than once, also after the disk was closed.
func (c *Cut) Close() error {
	c.stop(ErrClosed)
	c.discard()
	c.d.removeCut(c)
	return nil
}
