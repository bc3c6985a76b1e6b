package vmdisk

import (
	"errors"
	"fmt"
	"syscall"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// preserve keeps what the cut still needs of the blocks [a, b), which are about to change. See Store.preserve.
func (c *Cut) preserve(a, b int64) {
	for a < b {
		from, to := b, b
		c.mu.Lock()
		if c.err == nil {
			from = within(c.left, a, b, true)
			to = within(c.left, from, b, false)
		}
		c.mu.Unlock()
		if a = from; a < b {
			a = c.keep(a, to)
		}
	}
}

// keep keeps the blocks [a, b), or the first of them, and says up to where.
func (c *Cut) keep(a, b int64) int64 {
	if b-a > fewBlocks {
		if end := c.d.stack.holeEnd(a, b); end > a {
			c.keepHole(a, end)
			return end
		}
	}
	b = min(b, a+MaxOp/Block)
	buf := newBuffer(int(b-a) * Block)
	defer buf.release()
	if err := c.d.troubled("read for a cut", c.d.stack.readAt(buf.data, a*Block)); err != nil {
		c.lose(err, false)
		return b
	}
	block := func(x int64) []byte { return buf.data[(x-a)*Block : (x-a+1)*Block] }
	for x := a; x < b; {
		zero, end := isZero(block(x)), x+1
		for end < b && isZero(block(end)) == zero {
			end++
		}
		if zero {
			c.keepHole(x, end)
		} else {
			c.keepData(x, end, buf.data[(x-a)*Block:(end-a)*Block])
		}
		x = end
	}
	return b
}

// keepHole notes that the blocks [a, b) were all zeros.
func (c *Cut) keepHole(a, b int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	// What was released meanwhile isn't needed any more.
	for x := within(c.left, a, b, true); x < b; x = within(c.left, x, b, true) {
		end := within(c.left, x, b, false)
		c.left.Remove(x, end)
		c.holes.Add(x, end)
		x = end
	}
}

// keepData keeps the content of the blocks [a, b), which is p: in memory as long as there is some, then in the file.
func (c *Cut) keepData(a, b int64, p []byte) {
	c.mu.Lock()
	for ; c.err == nil && a < b; a, p = a+1, p[Block:] {
		if !c.left.Has(a) {
			continue // released meanwhile
		}
		slot, mem, ok := c.d.cuts.mem.take()
		if !ok {
			break
		}
		copy(mem, p)
		c.slots[a] = slot
		c.left.Remove(a, a+1)
		c.kept.Add(a, a+1)
	}
	done := c.err != nil || a == b
	c.mu.Unlock()
	if done {
		return
	}
	if err := c.keepFiled(a, p); err != nil {
		c.lose(err, false)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; c.err == nil && a < b; a++ {
		if c.left.Has(a) {
			c.left.Remove(a, a+1)
			c.kept.Add(a, a+1)
		}
	}
}

// keepFiled writes blocks from a on into the scratch file, which has them where the disk has them.
func (c *Cut) keepFiled(a int64, p []byte) error {
	if ok, err := c.d.space.take(int64(len(p))); !ok {
		return errors.Join(err, fmt.Errorf("reserve of %d bytes reached: %w", c.d.o.Reserve, syscall.ENOSPC))
	}
	c.io.RLock()
	for c.file == nil {
		c.io.RUnlock()
		if err := c.makeScratch(); err != nil {
			return err
		}
		c.io.RLock()
	}
	defer c.io.RUnlock()
	if _, err := c.file.WriteAt(p, a*Block); err != nil {
		return fmt.Errorf("%s: %w", c.scratchName(), err)
	}
	return nil
}

// scratchName ends like that of all files that mean nothing after a restart.
func (c *Cut) scratchName() string { return fmt.Sprintf("cut-%d%s", c.number, vfs.TempSuffix) }

// makeScratch makes the scratch file, if there is none yet and the cut hasn't ended.
func (c *Cut) makeScratch() error {
	c.io.Lock()
	defer c.io.Unlock()
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil || c.file != nil {
		return err
	}
	var f vfs.File
	if f, err = c.d.fs.Create(c.scratchName()); err != nil {
		return err
	}
	if err = f.Truncate(c.size); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", c.scratchName(), err), f.Close(), c.d.fs.Remove(c.scratchName()))
	}
	c.file = f
	return nil
}

// lose ends the cut because of cause; with filed only if it has a scratch file. It says whether it did.
func (c *Cut) lose(cause error, filed bool) bool {
	if filed {
		c.io.RLock()
		filed = c.file == nil
		c.io.RUnlock()
	}
	if filed || !c.stop(fmt.Errorf("%w: %w", ErrCutLost, cause)) {
		return false
	}
	c.discard()
	c.d.log.Warn("A cut was lost, what reads it must begin again", "disk", c.d.id, "position", c.pos.String(), "err", cause)
	return true
}

// stop makes err the answer to everything and gives back the memory. It says whether that is new.
func (c *Cut) stop(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.err = err
	for _, slot := range c.slots {
		c.d.cuts.mem.put(slot)
	}
	c.left, c.kept, c.holes, c.slots = nil, nil, nil, nil
	return true
}

// discard removes the scratch file of a cut that was stopped, if there is one.
func (c *Cut) discard() {
	c.io.Lock()
	defer c.io.Unlock()
	if c.file == nil {
		return
	}
	err := errors.Join(c.file.Truncate(0), c.file.Close(), c.d.fs.Remove(c.scratchName()))
	c.file = nil
	if err != nil {
		c.d.log.Warn("Removing a cut's scratch file failed, opening the disk removes it", "disk", c.d.id, "file", c.scratchName(), "err", err)
	}
}
