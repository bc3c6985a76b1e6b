package nbd

import (
	"errors"

	"golang.org/x/sys/windows"
)

// refused reports that nobody listens where we dialled.
func refused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
