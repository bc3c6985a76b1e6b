//go:build unix

package qemu

import (
	"net"
	"os"
	"syscall"
)

// socketPair makes the two ends of a stream: ours to read, theirs to be given to QEMU, with
// a kernel buffer of sendBuffer bytes on theirs (0 leaves the default).
func socketPair(sendBuffer int) (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "memory")
	if sendBuffer > 0 {
		if err := syscall.SetsockoptInt(fds[1], syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer); err != nil {
			syscall.Close(fds[0])
			theirs.Close()
			return nil, nil, os.NewSyscallError("setsockopt", err)
		}
	}
	f := os.NewFile(uintptr(fds[0]), "memory")
	defer f.Close()
	ours, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}
