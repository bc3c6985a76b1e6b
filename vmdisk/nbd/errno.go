package nbd

import (
	"errors"
	"io/fs"
	"syscall"
)

// errnoOf is the number that tells the client about a Backend's error.
func errnoOf(err error) uint32 {
	switch {
	case err == nil:
		return nbdOK
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG), isDiskFull(err):
		return nbdENOSPC
	case errors.Is(err, syscall.EINVAL):
		return nbdEINVAL
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nbdEPERM
	case errors.Is(err, syscall.ENOMEM):
		return nbdENOMEM
	case errors.Is(err, errors.ErrUnsupported):
		return nbdENOTSUP
	default:
		return nbdEIO
	}
}
