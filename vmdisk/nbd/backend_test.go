package nbd

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
)

// memDisk is a disk in memory that knows which 4 KiB blocks were never written. It checks the contract:
// ranges within the disk, and no two overlapping changes at once.
type memDisk struct {
	mu      sync.RWMutex
	data    []byte
	used    []bool
	durable int64 // flushes and FUA writes
	broken  error // the first breach of the contract

	busy map[*span]struct{}
	// hook, if set, is called without locks before each operation; its error is the operation's.
	hook func(op string, off, n int64) error
}

type span struct{ off, n int64 }

func newMemDisk(size int64) *memDisk {
	return &memDisk{
		data: make([]byte, size),
		used: make([]bool, (size+4095)/4096),
		busy: make(map[*span]struct{}),
	}
}

func (d *memDisk) Size() int64 { return int64(len(d.data)) }

func (d *memDisk) before(op string, off, n int64, change bool) (end func(), err error) {
	d.mu.Lock()
	if off < 0 || n < 0 || off > d.Size() || n > d.Size()-off {
		d.broken = errors.Join(d.broken, errors.New(op+": out of range"))
		d.mu.Unlock()
		return nil, syscall.EINVAL
	}
	mine := &span{off, n}
	if change {
		for s := range d.busy {
			if off < s.off+s.n && s.off < off+n {
				d.broken = errors.Join(d.broken, errors.New(op+": overlaps a change under way"))
			}
		}
		d.busy[mine] = struct{}{}
	}
	hook := d.hook
	d.mu.Unlock()
	end = func() {
		d.mu.Lock()
		delete(d.busy, mine)
		d.mu.Unlock()
	}
	if hook != nil {
		if err := hook(op, off, n); err != nil {
			end()
			return nil, err
		}
	}
	return end, nil
}

func (d *memDisk) breach() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.broken
}

func (d *memDisk) ReadAt(p []byte, off int64) error {
	end, err := d.before("read", off, int64(len(p)), false)
	if err != nil {
		return err
	}
	defer end()
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(p, d.data[off:])
	return nil
}

func (d *memDisk) WriteAt(p []byte, off int64, fua bool) error {
	end, err := d.before("write", off, int64(len(p)), true)
	if err != nil {
		return err
	}
	defer end()
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data[off:], p)
	for b := off / 4096; b*4096 < off+int64(len(p)); b++ {
		d.used[b] = true
	}
	if fua {
		d.durable++
	}
	return nil
}

func (d *memDisk) Flush() error {
	end, err := d.before("flush", 0, 0, false)
	if err != nil {
		return err
	}
	defer end()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable++
	return nil
}

func (d *memDisk) Trim(off, n int64, fua bool) error {
	return d.wipe("trim", off, n, true, fua)
}

func (d *memDisk) Zero(off, n int64, mayTrim, fua bool) error {
	return d.wipe("zero", off, n, mayTrim, fua)
}

func (d *memDisk) wipe(op string, off, n int64, free, fua bool) error {
	end, err := d.before(op, off, n, true)
	if err != nil {
		return err
	}
	defer end()
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	for b := off / 4096; b*4096 < off+n; b++ {
		whole := b*4096 >= off && min((b+1)*4096, d.Size()) <= off+n
		d.used[b] = !(free && whole) && (d.used[b] || !free)
	}
	if fua {
		d.durable++
	}
	return nil
}

func (d *memDisk) BlockStatus(off, n int64) ([]Extent, error) {
	end, err := d.before("status", off, n, false)
	if err != nil {
		return nil, err
	}
	defer end()
	d.mu.RLock()
	defer d.mu.RUnlock()
	var list []Extent
	for at := off; at < off+n; {
		next := min((at/4096+1)*4096, off+n)
		used := d.used[at/4096]
		list = append(list, Extent{Len: next - at, Hole: !used, Zero: !used})
		at = next
	}
	return list, nil
}

func (d *memDisk) Cache(off, n int64) error {
	end, err := d.before("cache", off, n, false)
	if err != nil {
		return err
	}
	end()
	return nil
}

// promptDisk says that nothing of it waits.
type promptDisk struct{ *memDisk }

func (promptDisk) Prompt(int64, int64, bool) bool { return true }

// plainDisk hides what a Backend need not have.
type plainDisk struct{ Backend }

// syncs is how often something was made durable.
func (d *memDisk) syncs() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.durable
}

// isUsed reports whether the i-th block has space.
func (d *memDisk) isUsed(i int) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.used[i]
}

// bytes is a copy of the content.
func (d *memDisk) bytes() []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return bytes.Clone(d.data)
}

// setHook changes the hook while the disk is in use.
func (d *memDisk) setHook(hook func(op string, off, n int64) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = hook
}
