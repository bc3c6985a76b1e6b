package disktool

import (
	"context"
	"errors"
	"io/fs"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/export"
	"tagalong.org/tagalong/vmdisk/throttle"
)

// write copies r into req.File. read is told what isn't needed any more.
func write(ctx context.Context, r vmdisk.Reader, read func(off, n int64), req api.ExportDisk, progress func(done, total int64)) error {
	err := export.File(ctx, req.File, r, export.Options{
		Format: string(req.Format), Force: req.Force, Limit: throttle.New(req.Rate), Progress: progress, Read: read,
	})
	switch {
	case errors.Is(err, export.ErrExists):
		return fileThere(req.File)
	case errors.Is(err, fs.ErrPermission):
		return fileError(req.File, err)
	}
	return err
}
