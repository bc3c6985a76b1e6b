//go:build !windows

package nbd

import (
	"errors"
	"syscall"
)

// refused reports that nobody listens where we dialled.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
