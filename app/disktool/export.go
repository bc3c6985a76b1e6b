package disktool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// CheckExport refuses a request that can't be obeyed, before anything is begun, and fills in what was left open.
func CheckExport(req *api.ExportDisk) error {
	usage := func(sentence, next string) error {
		return &api.Error{Code: api.CodeUsage, Sentence: sentence, Next: next}
	}
	if req.Format == "" {
		req.Format = api.DiskRaw
	}
	switch {
	case req.Format != api.DiskRaw && req.Format != api.DiskQcow2:
		return usage(fmt.Sprintf("Disks can't be exported as %q.", string(req.Format)), "Choose raw or qcow2.")
	case !filepath.IsAbs(req.File):
		return usage(fmt.Sprintf("%q isn't an absolute path.", req.File), "The engine has another directory: give the path from the root on.")
	case req.Rate < 0:
		return usage("The rate can't be less than nothing.", "Give bytes a second, or 0 for no limit.")
	}
	st, err := os.Lstat(req.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fileError(req.File, err)
	case !st.Mode().IsRegular():
		return usage(fmt.Sprintf("%s isn't a file.", req.File), "Name a file.")
	case !req.Force:
		return fileThere(req.File)
	}
	if st, err := os.Stat(filepath.Dir(req.File)); err != nil || !st.IsDir() {
		return &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no directory %s.", filepath.Dir(req.File)), Next: "Make it first, or check the path."}
	}
	return nil
}

func fileThere(file string) error {
	return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("There is a file %s already.", file), Next: "Name another one, or say --force to replace it."}
}

func fileError(file string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &api.Error{Code: api.CodeRefused, Sentence: fmt.Sprintf("The system doesn't let you write %s.", file), Next: "Choose a directory that is yours.", Cause: err.Error()}
	}
	return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("The file %s can't be written.", file), Next: "The cause tells what to mend.", Cause: err.Error()}
}

// allocated is the space that a file takes, in bytes.
func allocated(file string) (n int64, err error) {
	f, err := vfs.OS(filepath.Dir(file)).Open(filepath.Base(file))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Allocated()
}

// ExportClosed is Export of a disk that nobody has open; req.Disk is its directory.
func ExportClosed(ctx context.Context, req api.ExportDisk, log *slog.Logger, progress func(done, total int64)) (_ *api.DiskExport, err error) {
	dir, err := filepath.Abs(req.Disk)
	if err != nil {
		return nil, Explain(req.Disk, err)
	}
	if err := CheckExport(&req); err != nil {
		return nil, err
	}
	disk, err := open(dir, 0, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = Explain(dir, errors.Join(err, disk.Close())) }()
	table, err := tableOf(dir, disk.Size())
	if err != nil {
		return nil, err
	}
	made, err := Export(ctx, disk, table, req, progress)
	if err != nil && ctx.Err() != nil {
		return nil, cancelled(ctx)
	}
	return made, err
}

// Export writes a copy of one disk of an open store, which is cut as table says, into a file, at the position that it asks for: what is written to the disk
// meanwhile isn't in it. req must have
// passed CheckExport. The file appears under its name when it is whole and durable; before, and after a failure, there is nothing.
func Export(ctx context.Context, disk *vmdisk.Store, table volumes.Table, req api.ExportDisk, progress func(done, total int64)) (_ *api.DiskExport, err error) {
	v, err := volumeOf(table, req.Volume)
	if err != nil {
		return nil, err
	}
	r, err := at(ctx, disk, vmdisk.Position(req.Position))
	if err != nil {
		return nil, err
	}
	var read func(off, n int64)
	if cut, ok := r.(*vmdisk.Cut); ok {
		defer func() { err = errors.Join(err, cut.Close()) }()
		read = func(off, n int64) {
			for p := range v.Pieces(off, n) {
				cut.Release(p.At, p.Len)
			}
		}
	}
	shown := window.NewReader(r, v)
	if err := write(ctx, shown, read, req, progress); err != nil {
		return nil, err
	}
	space, err := allocated(req.File)
	if err != nil {
		return nil, fileError(req.File, err)
	}
	made := &api.DiskExport{File: req.File, Format: req.Format, Position: api.Position(r.Position()), Size: shown.Size(), Allocated: space}
	return made, nil
}

// held is a disk at a position.
type held interface {
	vmdisk.Reader
	Position() vmdisk.Position
}

// at is the disk at a position that is still held: the present one (also if pos is zero), or the one before while the disk is
// being fetched. A *vmdisk.Cut is the caller's to close.
func at(ctx context.Context, disk *vmdisk.Store, pos vmdisk.Position) (held, error) {
	past, err := disk.Past()
	if err == nil && past.Position() == pos {
		return past, nil
	}
	if err != nil && !errors.Is(err, vmdisk.ErrWhole) {
		return nil, err
	}
	var next string
	switch {
	case past != nil && pos != (vmdisk.Position{}):
		next = fmt.Sprintf("It is being fetched; what it was before, %s, can be exported.", past.Position())
	default:
		cut, err := disk.Cut(ctx)
		if err != nil {
			return nil, err
		}
		if pos == (vmdisk.Position{}) || cut.Position() == pos {
			return cut, nil
		}
		next = fmt.Sprintf("It is at %s.", cut.Position())
		if err := cut.Close(); err != nil {
			return nil, err
		}
	}
	return nil, &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("The disk isn't held at position %s any more, or never was.", pos), Next: next}
}
