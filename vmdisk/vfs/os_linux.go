package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func prepare(*os.File, bool) {}

// full maps the operating system's "disk full" to syscall.ENOSPC.
func full(err error) error { return err }

func again(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (o *osFile) Sync() error {
	return o.control(func(fd uintptr) error {
		return again(func() error { return unix.Fdatasync(int(fd)) })
	})
}

func (o *osFile) fallocate(mode uint32, off, n int64) error {
	err := o.control(func(fd uintptr) error {
		return again(func() error { return unix.Fallocate(int(fd), mode|unix.FALLOC_FL_KEEP_SIZE, off, n) })
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return writeZeros(o, off, n)
	}
	return err
}

func (o *osFile) Punch(off, n int64) error {
	return o.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
}

func (o *osFile) ZeroRange(off, n int64) error {
	return o.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
}

func (o *osFile) seek(off int64, whence int, none int64) (int64, error) {
	pos := none
	err := o.control(func(fd uintptr) error {
		p, err := unix.Seek(int(fd), off, whence)
		if err == nil {
			pos = p
		}
		return err
	})
	if errors.Is(err, unix.ENXIO) {
		return o.Size()
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return none, nil
	}
	return pos, err
}

func (o *osFile) NextData(off int64) (int64, error) { return o.seek(off, unix.SEEK_DATA, off) }

func (o *osFile) NextHole(off int64) (int64, error) {
	size, err := o.Size()
	if err != nil {
		return 0, err
	}
	return o.seek(off, unix.SEEK_HOLE, size)
}

func (o *osFile) Allocated() (int64, error) {
	var n int64
	err := o.control(func(fd uintptr) error {
		var st unix.Stat_t
		err := unix.Fstat(int(fd), &st)
		n = st.Blocks * 512
		return err
	})
	return n, err
}
