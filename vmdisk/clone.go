package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	clonePiece = 1 << 20
	// cloneSync is how much is copied before it is made durable, so that progress is honest, in bytes.
	cloneSync = 256 << 20
)

// CloneOptions say what a clone of a disk becomes. The zero value is the same disk once more, as a replica.
type CloneOptions struct {
	// Fresh gives the clone a history of its own: it is a disk that never had an owner. Otherwise it is a whole replica at the position of
	// the disk, which is active under no term: those that the disk was active under count as given away.
	Fresh bool
	// ID of the clone; nothing is the disk's own, and with Fresh a new one.
	ID ID
	// Options of the disk are those of opening it (Clone), and Options.Reserve is how many bytes must stay free where the clone goes.
	Options Options
	// FS holds the clone's files, if it isn't a directory of the operating system's. Then its journal comes last: before, it is no disk.
	FS vfs.FS
}

// Clone is Store.Clone of the closed disk in the directory src, which is opened for it. Errors are those of Open too.
func Clone(ctx context.Context, dst, src string, o CloneOptions, progress func(done, total int64)) error {
	d, err := Open(src, o.Options)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	return errors.Join(d.Clone(ctx, dst, o, progress), d.Close())
}

// Clone makes a second disk of this one, as it is at its position (an active disk at its next barrier): in the new directory dst, closed, with
// nothing of peers. Where the file system can, both share their blocks until one changes them, and no time and no space is taken; else what isn't a hole is copied,
// in bytes of which progress, if not nil, is told. The disk can be used meanwhile.
//
// The directory gets its name last: a crash leaves none, only one called dst+vfs.TempSuffix, which the next Clone removes (so does
// SweepClones); an error leaves nothing. Errors: ErrExists, ErrIncomplete, ErrHydrating, ErrCutLost (the disk was written faster than it was copied), syscall.ENOSPC (before
// anything is copied, if it can't fit), those of the files and of ctx.
func (d *Store) Clone(ctx context.Context, dst string, o CloneOptions, progress func(done, total int64)) error {
	err := d.clone(ctx, dst, o, progress)
	if err != nil {
		return fmt.Errorf("clone to %s: %w", dst, err)
	}
	d.log.Info("Disk was cloned", "disk", d.id, "to", dst)
	return nil
}

func (d *Store) clone(ctx context.Context, dst string, o CloneOptions, progress func(done, total int64)) error {
	if o.FS != nil {
		return d.cloneInto(ctx, o.FS, o, progress)
	}
	if _, err := os.Lstat(dst); err == nil {
		return ErrExists
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp := dst + vfs.TempSuffix
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return err
	}
	err := d.cloneInto(ctx, vfs.OS(temp), o, progress)
	if err == nil {
		err = os.Rename(temp, dst)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return vfs.OS(filepath.Dir(dst)).SyncDir()
}

// SweepClones removes from a directory what clones that a crash cut short have left in it. None may be under way there.
func SweepClones(dir string) error {
	entries, err := os.ReadDir(dir) // and no pattern: the path may have anything in it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), vfs.TempSuffix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("remove unfinished clones: %w", err)
	}
	return nil
}

// cloneInto makes the clone's files; the journal comes last.
func (d *Store) cloneInto(ctx context.Context, fsys vfs.FS, o CloneOptions, progress func(done, total int64)) error {
	c, err := d.Cut(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	h, st := header{id: o.ID, size: c.Size()}, newState()
	d.clonedState(c.pos, &h, st, o.Fresh)
	base, err := fsys.Create(baseName)
	if err != nil {
		return err
	}
	k := cloning{cut: c, base: base, space: &space{fs: fsys, reserve: o.Options.Reserve}, progress: progress}
	err = base.Truncate(c.Size())
	if err == nil {
		err = k.fill(ctx)
	}
	if err == nil {
		err = base.Sync()
	}
	if err = errors.Join(err, base.Close()); err != nil {
		return err
	}
	j, err := createJournal(fsys, h, st)
	if err != nil {
		return err
	}
	return j.close()
}

// clonedState is what the journal of a clone at pos says.
func (d *Store) clonedState(pos Position, h *header, st *state, fresh bool) {
	from := d.j.snapshot()
	st.complete, st.exact, st.check = true, true, from.check
	switch {
	case h.id != ID{}:
	case fresh:
		h.id = NewID()
	default:
		h.id = d.id
	}
	if fresh {
		return
	}
	st.position, st.ends = pos, maps.Clone(from.ends)
	st.activated, st.given, st.reserved = from.activated, max(from.given, from.activated), max(from.reserved, pos.Barrier)
}

// cloning is one clone in the making.
type cloning struct {
	cut         *Cut
	base        vfs.File
	space       *space
	progress    func(done, total int64)
	done, total int64 // bytes
	unsynced    int64
	buf         []byte
}

// fill makes base what the cut is.
func (k *cloning) fill(ctx context.Context) error {
	above, shared, err := k.cut.d.shareBase(k.cut, k.base)
	if err != nil {
		return err
	}
	var todo [][2]int64 // runs of bytes
	if shared {
		for a := above.Next(0, true); a < above.Blocks(); {
			b := above.Next(a, false)
			todo = append(todo, [2]int64{a * Block, b * Block})
			k.total += (b - a) * Block
			a = above.Next(b, true)
		}
	} else {
		err = k.data(ctx, func(off, n int64) error {
			k.total += n
			return nil
		})
		if err != nil {
			return err
		}
	}
	if ok, err := k.room(); !ok || err != nil {
		return errors.Join(err, fmt.Errorf("%d bytes and a reserve of %d are more than what is free: %w", k.total, k.space.reserve, syscall.ENOSPC))
	}
	k.buf = make([]byte, clonePiece)
	if !shared {
		return k.data(ctx, func(off, n int64) error { return k.copy(ctx, off, n, false) })
	}
	for _, run := range todo {
		if err := k.copy(ctx, run[0], run[1]-run[0], true); err != nil {
			return err
		}
	}
	return nil
}

// room says whether what is to be copied fits.
func (k *cloning) room() (bool, error) {
	if k.total == 0 {
		return true, nil
	}
	return k.space.take(k.total)
}

// data calls do for the runs of the cut that aren't holes.
func (k *cloning) data(ctx context.Context, do func(off, n int64) error) error {
	for off, size := int64(0), k.cut.Size(); off < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		ext, err := k.cut.Extents(off, size-off)
		if err != nil {
			return err
		}
		for _, e := range ext {
			if !e.Hole {
				if err := do(off, e.Len); err != nil {
					return err
				}
			}
			off += e.Len
		}
	}
	return nil
}

// copy copies n bytes at off. Zeros are left out, or with over are made holes.
func (k *cloning) copy(ctx context.Context, off, n int64, over bool) error {
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := k.buf[:min(clonePiece, end-off)]
		if err := k.cut.ReadAt(p, off); err != nil {
			return err
		}
		if err := k.put(p, off, over); err != nil {
			return err
		}
		off += int64(len(p))
		k.done += int64(len(p))
		// What is kept for the cut isn't needed twice. A block that a run begins or ends in is released with the run that has all of it.
		k.cut.Release(off-int64(len(p)), int64(len(p)))
		if k.unsynced += int64(len(p)); k.unsynced >= cloneSync {
			if err := k.base.Sync(); err != nil {
				return err
			}
			k.unsynced = 0
		}
		if k.progress != nil {
			k.progress(k.done, max(k.done, k.total))
		}
	}
	return nil
}

// put writes the blocks of p that aren't zeros, in runs.
func (k *cloning) put(p []byte, off int64, over bool) error {
	for at := 0; at < len(p); {
		step := func(x int) int { return min(len(p), x+Block) }
		zero, end := isZero(p[at:step(at)]), step(at)
		for end < len(p) && isZero(p[end:step(end)]) == zero {
			end = step(end)
		}
		var err error
		switch {
		case !zero:
			_, err = k.base.WriteAt(p[at:end], off+int64(at))
		case over:
			err = k.base.Punch(off+int64(at), int64(end-at))
		}
		if err != nil {
			return err
		}
		at = end
	}
	return nil
}

// shareBase makes dst share all of base.raw, if the file system can do that and nobody would wait for it: then above has the blocks that lie in
// layers, and must be copied. The cut must just have been taken.
func (d *Store) shareBase(c *Cut, dst vfs.File) (above *blockset.Set, shared bool, err error) {
	// Layers stay what they are under syncMu; a guest that writes isn't stopped, one that is fenced doesn't mind.
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.mu.Lock()
	busy := d.active && !d.fenced || d.closed
	d.mu.Unlock()
	if busy {
		return nil, false, nil
	}
	d.gate.Lock()
	defer d.gate.Unlock()
	d.rd.RLock()
	defer d.rd.RUnlock()
	c.mu.Lock()
	still := c.err == nil && c.left.Count() == d.blocks() && c.size == d.Size()
	c.mu.Unlock()
	if !still {
		return nil, false, nil
	}
	switch err := vfs.Reflink(dst, d.stack.base); {
	case errors.Is(err, vfs.ErrNoReflink):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	above = blockset.New(blockset.Most)
	for _, l := range d.stack.layers {
		above.Or(l.Blocks())
	}
	return above, true, nil
}
