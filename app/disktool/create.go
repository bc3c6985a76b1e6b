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
	"tagalong.org/tagalong/app/diskimage"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// CreateOptions says what Create makes.
type CreateOptions struct {
	// Dir is where: missing, or empty.
	Dir string
	// Size in bytes; it is rounded up to whole blocks. 0 is the image's.
	Size int64
	// From is an image to copy, or ""; Format is its format, or "" to find it out.
	From, Format string
	// Reserve is how many bytes of the file system stay free.
	Reserve int64
	Log     *slog.Logger
	// Progress gets bytes of the image; it may be nil.
	Progress func(done, total int64)
}

// Create makes a disk. It appears under Dir when it is whole: it is made beside it, under a name of its own that what a
// crash leaves behind keeps, and that the next attempt clears.
func Create(ctx context.Context, o CreateOptions) (*api.DiskInfo, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, Explain(o.Dir, err)
	}
	info, err := create(ctx, dir, o)
	if err != nil {
		if stopped := cancelled(ctx); stopped != nil {
			return nil, stopped
		}
		return nil, Explain(dir, err)
	}
	return info, nil
}

func create(ctx context.Context, dir string, o CreateOptions) (_ *api.DiskInfo, err error) {
	if err := vacant(dir); err != nil {
		return nil, err
	}
	img, err := inspect(ctx, o)
	if err != nil {
		return nil, err
	}
	size := o.Size
	switch {
	case size == 0 && img.Size == 0:
		return nil, &api.Error{Code: api.CodeUsage, Sentence: "A new disk needs a size.", Next: "Say how large it may grow: --size 20G"}
	case size == 0:
		size = img.Size
	case size < img.Size:
		return nil, &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("The image has %d bytes, and the disk only %d.", img.Size, size), Next: "Give a larger --size, or none."}
	}
	if size <= vmdisk.MaxSize {
		size = (size + vmdisk.Block - 1) / vmdisk.Block * vmdisk.Block
	}
	part := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".unfinished")
	disk, err := fresh(part, size, vmdisk.Options{Reserve: o.Reserve, Log: o.Log})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, disk.Close(), os.RemoveAll(part))
		}
	}()
	if err := fill(ctx, disk, img, o); err != nil {
		return nil, err
	}
	info := Describe(dir, disk.Info(), volumes.One(disk.Size()))
	if err := disk.Close(); err != nil {
		return nil, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // it is empty
		return nil, err
	}
	if err := os.Rename(part, dir); err != nil {
		return nil, err
	}
	return &info, vfs.OS(filepath.Dir(dir)).SyncDir()
}

// vacant makes sure that nothing is in dir.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.MkdirAll(filepath.Dir(dir), 0o700)
	case err != nil:
		if st, statErr := os.Stat(dir); statErr == nil && !st.IsDir() {
			return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%s is a file.", dir), Next: "A disk is a directory: name one that isn't there yet."}
		}
		return err
	}
	for _, e := range entries {
		if e.Name() == "journal" {
			return vmdisk.ErrExists
		}
	}
	if len(entries) > 0 {
		return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("There is something in %s already.", dir), Next: "Name a directory that is empty, or isn't there yet."}
	}
	return nil
}

func inspect(ctx context.Context, o CreateOptions) (diskimage.Image, error) {
	switch {
	case o.From == "":
		return diskimage.Image{}, nil
	case o.Format != "" && !diskimage.Known(o.Format):
		return diskimage.Image{}, diskimage.ErrFormat(o.Format)
	}
	from, err := filepath.Abs(o.From)
	if err != nil {
		return diskimage.Image{}, err
	}
	return diskimage.Inspect(ctx, from, o.Format)
}

// fresh makes an empty disk in part, in place of what an attempt that died left there.
func fresh(part string, size int64, o vmdisk.Options) (*vmdisk.Store, error) {
	disk, err := vmdisk.Create(part, vmdisk.NewID(), size, o)
	if errors.Is(err, vmdisk.ErrExists) {
		if err := os.RemoveAll(part); err != nil {
			return nil, err
		}
		disk, err = vmdisk.Create(part, vmdisk.NewID(), size, o)
	}
	return disk, err
}

// fill copies the image in, if there is one. A raw one goes straight in and leaves the disk as new; others come
// through qemu-img, which writes to it under term 1.
func fill(ctx context.Context, disk *vmdisk.Store, img diskimage.Image, o CreateOptions) error {
	progress := o.Progress
	if progress == nil {
		progress = func(int64, int64) {}
	}
	switch img.Format {
	case "":
		return nil
	case "raw":
		return disk.ImportRaw(ctx, img.Path, progress)
	}
	if err := disk.Activate(1); err != nil {
		return err
	}
	sockets, err := os.MkdirTemp("", "tagalong") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	if err := diskimage.Fill(ctx, disk, img, sockets, o.Log, func(done int64) { progress(done, img.Size) }); err != nil {
		return err
	}
	return disk.Flush()
}
