package vfs

import "errors"

// ErrNoReflink says that the files can't share their content: the file system, or the operating system, doesn't do that, or they are on two.
var ErrNoReflink = errors.New("vfs: files can't share content here")

// reflinker is a File that can share the content of another.
type reflinker interface{ reflink(src File) error }

// Reflink makes all of src the content of dst, at once and without taking space: they share it until either is written (Linux: FICLONE).
// Durable after dst.Sync. Errors: ErrNoReflink, then dst is as it was; those of the files.
func Reflink(dst, src File) error {
	if r, ok := dst.(reflinker); ok {
		return r.reflink(src)
	}
	return ErrNoReflink
}

// reflink is what Reflink does in memory, if the test wants that (SetReflink).
func (f *memFile) reflink(src File) error {
	from, ok := src.(*memFile)
	if !ok || !f.m.canReflink() {
		return ErrNoReflink
	}
	from.m.mu.Lock()
	content := from.n.now.copy()
	from.m.mu.Unlock()
	return f.change(fileOp{kind: opReflink, content: content})
}

// SetReflink lets files of this directory share the content of others (Reflink), or not, as at first.
func (m *Mem) SetReflink(can bool) { m.mu.Lock(); defer m.mu.Unlock(); m.reflinks = can }

func (m *Mem) canReflink() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.reflinks }
