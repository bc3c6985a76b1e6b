//go:build linux || darwin

package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// fdWire waits for its socket in the system's own read and write. The runtime's poller would wake a thread for each request
// that comes, and that one another, to look for more work: on a quiet connection, most of what a request costs. A thread
// stays with the reader instead.
type fdWire struct{ fd int }

// sendBuffer is the room for answers that the client has not read, in bytes.
const sendBuffer = 1 << 20

// newWire takes nc over. If nc isn't a Unix socket, or the system refuses, nc goes on as it is.
func newWire(nc net.Conn) wire {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return netWire{nc}
	}
	// The more fits in, the seldomer the two ends wait for each other. The system may give less.
	_ = u.SetWriteBuffer(sendBuffer)
	rc, err := u.SyscallConn()
	if err != nil {
		return netWire{nc}
	}
	fd := -1
	control := rc.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if control != nil || err != nil {
		return netWire{nc}
	}
	if unix.SetNonblock(fd, false) != nil {
		_ = unix.Close(fd)
		return netWire{nc}
	}
	// The runtime forgets the socket; the duplicate keeps it open.
	_ = nc.Close()
	return fdWire{fd}
}

// again repeats a system call that a signal has ended.
func again(fn func() (int, error)) (int, error) {
	for {
		if n, err := fn(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Read is io.Reader.Read.
func (w fdWire) Read(p []byte) (int, error) {
	n, err := again(func() (int, error) { return unix.Read(w.fd, p) })
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// Write is io.Writer.Write.
func (w fdWire) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := again(func() (int, error) { return unix.Write(w.fd, p[done:]) })
		if err != nil {
			return done, os.NewSyscallError("write", err)
		}
		done += n
	}
	return done, nil
}

// maxVector is how many pieces every system takes at once.
const maxVector = 1024

func (w fdWire) writev(list *net.Buffers) error {
	for len(*list) > 0 {
		n, err := again(func() (int, error) { return unix.Writev(w.fd, (*list)[:min(len(*list), maxVector)]) })
		if err != nil {
			return os.NewSyscallError("writev", err)
		}
		*list = advance(*list, n)
	}
	return nil
}

// advance is list without its first n bytes: a signal may end a write half-way.
func advance(list net.Buffers, n int) net.Buffers {
	for n > 0 {
		if first := list[0]; n < len(first) {
			list[0] = first[n:]
			break
		}
		n -= len(list[0])
		list = list[1:]
	}
	return list
}

// What could fail is that the client was faster.
func (w fdWire) interrupt() { _ = unix.Shutdown(w.fd, unix.SHUT_RDWR) }
func (w fdWire) close()     { _ = unix.Close(w.fd) }
func (w fdWire) gone() bool { return hungUp(w.fd) }

// peerGone is wire.gone for a connection of the runtime.
func peerGone(nc net.Conn) bool {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = rc.Control(func(fd uintptr) { gone = hungUp(int(fd)) })
	return err != nil || gone
}

func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
