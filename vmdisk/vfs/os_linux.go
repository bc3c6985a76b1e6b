package vfs

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func prepare(*os.File, bool) {}

// full maps the operating system's "disk full" to syscall.ENOSPC.
func full(err error) error { return err }

func (o *osFile) Sync() error {
	c := newCall(callSync, 0, 0, 0)
	defer c.free()
	return c.on(o.conn)
}

func (o *osFile) fallocate(mode uint32, off, n int64) error {
	c := newCall(callAllocate, mode, off, n)
	err := c.on(o.conn)
	c.free()
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

func (o *osFile) reflink(src File) error {
	from, ok := src.(*osFile)
	if !ok {
		return ErrNoReflink
	}
	err := from.control(func(fd uintptr) error {
		return o.control(func(own uintptr) error { return unix.IoctlFileClone(int(own), int(fd)) })
	})
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EXDEV, unix.EINVAL, unix.EPERM} {
		if errors.Is(err, no) {
			return ErrNoReflink
		}
	}
	return err
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

// call is one system call on a file's descriptor. Calls are used again, so that they take no memory.
type call struct {
	kind   callKind
	mode   uint32
	off, n int64
	err    error
	run    func(fd uintptr) // do, bound once
}

type callKind int

const (
	callSync     callKind = 1 // fdatasync
	callAllocate callKind = 2 // fallocate with mode, off, n
)

var calls = sync.Pool{New: func() any {
	c := &call{}
	c.run = c.do
	return c
}}

func newCall(kind callKind, mode uint32, off, n int64) *call {
	c, ok := calls.Get().(*call)
	if !ok {
		panic("vfs: a stranger in the pool of calls")
	}
	c.kind, c.mode, c.off, c.n, c.err = kind, mode, off, n, nil
	return c
}

func (c *call) free() { calls.Put(c) }

func (c *call) do(fd uintptr) {
	for {
		if c.kind == callSync {
			c.err = unix.Fdatasync(int(fd))
		} else {
			c.err = unix.Fallocate(int(fd), c.mode|unix.FALLOC_FL_KEEP_SIZE, c.off, c.n)
		}
		if !errors.Is(c.err, unix.EINTR) {
			return
		}
	}
}

// on makes the call on a file's descriptor, which stays open meanwhile.
func (c *call) on(conn syscall.RawConn) error {
	if err := conn.Control(c.run); err != nil {
		return err
	}
	return c.err
}
