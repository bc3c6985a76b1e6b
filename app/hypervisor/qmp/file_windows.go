package qmp

import (
	"errors"
	"net"
	"os"
)

// writeWithFile fails: Windows has no way to pass a file over a socket.
func writeWithFile(*net.UnixConn, []byte, *os.File) error {
	return errors.ErrUnsupported
}
