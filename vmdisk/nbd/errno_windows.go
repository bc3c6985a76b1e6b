package nbd

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isDiskFull knows what Windows says instead of ENOSPC.
func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
