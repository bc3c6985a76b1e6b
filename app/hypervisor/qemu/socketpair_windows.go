package qemu

import (
	"errors"
	"net"
	"os"
)

// socketPair fails: Windows has none, and no way to give one end to QEMU.
func socketPair(int) (net.Conn, *os.File, error) {
	return nil, nil, errors.ErrUnsupported
}
