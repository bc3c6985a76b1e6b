package disktool

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/diskimage"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// write copies r into req.File.
func write(ctx context.Context, r vmdisk.Reader, req api.ExportDisk, progress func(done, total int64)) (err error) {
	part, err := os.CreateTemp(filepath.Dir(req.File), "."+filepath.Base(req.File)+".*.unfinished")
	if err != nil {
		return fileError(req.File, err)
	}
	defer func() {
		_ = part.Close() // it was synced, or isn't wanted
		if err != nil {
			_ = os.Remove(part.Name())
		}
	}()
	sockets, err := os.MkdirTemp("", "tagalong") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	from := &source{Reader: r, ctx: ctx, limit: throttle.New(req.Rate)}
	err = diskimage.Write(ctx, disknbd.ReadOnly{Reader: from}, string(req.Format), part.Name(), sockets, slog.New(slog.DiscardHandler), func(done int64) { progress(done, r.Size()) })
	if cause := from.cause(); err != nil && cause != nil {
		err = cause // the protocol has only a number for it
	}
	if err == nil {
		err = part.Sync()
	}
	if _, there := os.Lstat(req.File); err == nil && !req.Force && !errors.Is(there, fs.ErrNotExist) {
		err = fileThere(req.File)
	}
	if err == nil {
		err = os.Rename(part.Name(), req.File)
	}
	if err == nil {
		err = vfs.OS(filepath.Dir(req.File)).SyncDir()
	}
	return err
}

// source is a reader that is read no faster than a limit, and that remembers its first error.
type source struct {
	vmdisk.Reader
	ctx   context.Context
	limit *throttle.Limit

	mu  sync.Mutex
	err error
}

// ReadAt implements vmdisk.Reader.
func (s *source) ReadAt(p []byte, off int64) error {
	if err := s.limit.Wait(s.ctx, int64(len(p))); err != nil {
		return err
	}
	return s.note(s.Reader.ReadAt(p, off))
}

// Extents implements vmdisk.Reader.
func (s *source) Extents(off, n int64) ([]vmdisk.Extent, error) {
	list, err := s.Reader.Extents(off, n)
	return list, s.note(err)
}

func (s *source) note(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = cmp.Or(s.err, err)
	return err
}

func (s *source) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
