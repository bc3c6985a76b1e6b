package export

import (
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// raw is the format of the disk itself. A new file is all hole, so only what isn't zeros is written.
type raw struct {
	f    vfs.File
	size int64
}

func (r *raw) begin() error { return r.f.Truncate(r.size) }

func (r *raw) put(p []byte, off int64) error {
	return runs(p, vmdisk.Block, func(from, to int) error {
		_, err := r.f.WriteAt(p[from:to], off+int64(from))
		return err
	})
}

func (r *raw) close(int64) error { return nil }
func (r *raw) finish() error     { return nil }
