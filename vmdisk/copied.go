package vmdisk

import (
	"fmt"

	"tagalong.org/tagalong/vmdisk/blockset"
)

// Copied is which blocks an unfinished copy has brought, for who goes on with it and doesn't know: those of State().Copy if the replica is
// whole, otherwise all that aren't holes, whichever copies they are of. What of it survives a crash is content that came, but not
// all that came, and after a power cut perhaps torn blocks among it: it says where to look, not what is right. The set is the caller's.
func (a *Applier) Copied() (out *blockset.Set, err error) {
	err = a.do("copied", func() error {
		d := a.d
		if a.State().Complete {
			if d.incoming == nil {
				out = blockset.New(blockset.Most)
			} else {
				out = d.incoming.Blocks()
			}
			return nil
		}
		out = blockset.New(blockset.Most)
		d.rd.RLock()
		defer d.rd.RUnlock()
		for size, off := d.Size(), int64(0); off < size; {
			from, err := d.stack.nextData(off)
			if err != nil || from >= size {
				return err
			}
			if off, err = d.stack.nextHole(from); err != nil {
				return err
			}
			out.Add(from/Block, (min(off, size)+Block-1)/Block)
		}
		return nil
	})
	return out, err
}

// ReadAt reads, after Begin, the disk as it would be if the copy ended now. Errors: ErrNoCopy, ErrRange, those of the files.
func (a *Applier) ReadAt(p []byte, off int64) error {
	return a.do("read copy", func() error {
		d := a.d
		if err := d.bounds(off, int64(len(p))); err != nil {
			return err
		}
		st := a.State()
		if st.Complete && a.in == nil || !st.Complete && st.Copy == [16]byte{} {
			return ErrNoCopy
		}
		d.rd.RLock()
		defer d.rd.RUnlock()
		for end := off + int64(len(p)); off < end; {
			has, to := false, end
			if a.in != nil {
				var last int64
				has, last = a.in.Run(off/Block, (end+Block-1)/Block)
				to = min(end, last*Block)
			}
			var err error
			if part := p[:to-off]; has {
				err = a.in.ReadAt(part, off)
			} else {
				err = d.stack.readAt(part, off)
			}
			if err != nil {
				return d.troubled("read", fmt.Errorf("copy: %w", err))
			}
			p, off = p[to-off:], to
		}
		return nil
	})
}
