package diskverify

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
)

func TestDriveErrorsAreTold(t *testing.T) {
	for err, want := range map[error]bool{
		&os.PathError{Op: "read", Err: syscall.EIO}: true,
		errors.Join(vmdisk.ErrFailed, syscall.EIO):  false,
		vmdisk.ErrClosed: false,
	} {
		if got := errors.Is(driveError(err), verify.ErrUnreadable); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if driveError(nil) != nil {
		t.Error("an error out of nothing")
	}
}
