package nbd

import "errors"

// The errors of this package. Those that a Backend may return choose what the client sees, next to the
// system's errors: ENOSPC, EDQUOT and EFBIG become NBD_ENOSPC (QEMU pauses the VM), EINVAL becomes
// NBD_EINVAL, EPERM, EACCES and EROFS become NBD_EPERM, ENOMEM becomes NBD_ENOMEM, unsupported operations
// become NBD_ENOTSUP, and everything else NBD_EIO.
var (
	// ErrHangUp, returned by a Backend or by Server.Lookup, closes the connection without an answer.
	// The client connects again and repeats what was not answered. It is the only right answer to
	// passing trouble: the guest sees a delay instead of a broken disk.
	ErrHangUp = errors.New("nbd: hang up without an answer")
	// ErrUnknownExport is for Server.Lookup: there is no export of that name.
	ErrUnknownExport = errors.New("nbd: unknown export")
	// ErrInUse is returned by Listen when another process (or listener) serves the socket.
	ErrInUse = errors.New("nbd: socket is in use")
	// ErrNotSocket is returned by Listen when the path is something other than a socket.
	ErrNotSocket = errors.New("nbd: path exists and is not a socket")
	// ErrUnsafeDir is returned by Listen when others than the user can reach the socket's directory.
	ErrUnsafeDir = errors.New("nbd: directory is open to other users")
	// ErrPathTooLong is returned by Listen when the path does not fit into a socket address.
	ErrPathTooLong = errors.New("nbd: socket path is too long")
	// ErrNoBackend is returned by Serve when the Server has neither a Backend nor a Lookup.
	ErrNoBackend = errors.New("nbd: nothing to serve")

	errProtocol = errors.New("nbd: protocol violation")
	errReplaced = errors.New("nbd: client is gone and another one took over")
	errTooMany  = errors.New("nbd: too many connections")
	errBackend  = errors.New("nbd: backend cannot be compared")
	errExtents  = errors.New("nbd: backend described no extents")
)

// Backend is a disk. All methods are called from many goroutines at once; calls that change overlapping
// ranges are never concurrent. Offsets and lengths are bytes, of any alignment, within [0, Size()).
// A Backend must be comparable (usually a pointer): equal values are one disk, under whatever export name.
type Backend interface {
	// Size is the disk's size in bytes. It is asked once for each connection and must not change.
	Size() int64
	// ReadAt fills p from off. p belongs to the caller again when ReadAt returns.
	ReadAt(p []byte, off int64) error
	// WriteAt writes p at off, and returns when the kernel has it; with fua, when it is durable.
	// p must neither be changed, nor kept after WriteAt has returned.
	WriteAt(p []byte, off int64, fua bool) error
	// Flush makes every write that returned before Flush was called durable.
	Flush() error
	// Trim says that the n bytes at off are not needed any more; what they read as afterwards is open.
	// n is less than 4 GiB.
	Trim(off, n int64, fua bool) error
	// Zero makes the n bytes at off read as zeros. With mayTrim it may give their space back, without
	// it the space must stay allocated. n is less than 4 GiB.
	Zero(off, n int64, mayTrim, fua bool) error
}

// Extent is a run of bytes of one kind.
type Extent struct {
	// Len is the length in bytes, more than 0.
	Len int64
	// Hole says that no space is allocated for it.
	Hole bool
	// Zero says that it reads as zeros.
	Zero bool
}

// StatusBackend is a Backend that knows where it has data. With it, base:allocation is offered.
type StatusBackend interface {
	Backend
	// BlockStatus describes the bytes from off on, in order. It covers at least one byte; it need not
	// cover all of n, and what goes beyond n is cut. The slice belongs to the caller.
	BlockStatus(off, n int64) ([]Extent, error)
}

// CacheBackend is a Backend that can fetch ahead. With it, NBD_CMD_CACHE is offered.
type CacheBackend interface {
	Backend
	// Cache brings the n bytes at off near, so that a later read of them is fast. n is less than 4 GiB.
	Cache(off, n int64) error
}

// ReadOnlyBackend is a Backend that clients are told not to write to. What changes it must return
// fs.ErrPermission: clients need not listen.
type ReadOnlyBackend interface {
	Backend
	// ReadOnly only marks.
	ReadOnly()
}

// PromptBackend is a Backend that can tell a quick request from one that may wait (for another device,
// say). Quick ones run in the goroutine that reads the connection, which saves two thread switches.
type PromptBackend interface {
	Backend
	// Prompt reports whether reading or writing n bytes at off now would very likely not wait for
	// anything slower than the page cache. It must be cheap. A wrong answer costs time, nothing else.
	Prompt(off, n int64, write bool) bool
}
