//go:build unix

package qmp

import (
	"io"
	"net"
	"os"
	"syscall"
)

// writeWithFile sends line with file's descriptor attached to its first byte.
func writeWithFile(conn *net.UnixConn, line []byte, file *os.File) error {
	n, _, err := conn.WriteMsgUnix(line, syscall.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(line) {
		return io.ErrShortWrite
	}
	return err
}
