package disktool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// Explain says what err, of a disk in dir, means for the person. What has a sentence already keeps it.
func Explain(dir string, err error) error {
	var known *api.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	say := func(code api.Code, sentence, next string) error {
		return &api.Error{Code: code, Sentence: sentence, Next: next, Cause: err.Error()}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return say(api.CodeCancelled, "Cancelled.", "")
	case errors.Is(err, vmdisk.ErrInUse):
		return say(api.CodeBusy, fmt.Sprintf("The disk in %s is in use, most likely by the engine.", dir),
			"Ask the engine (tagalong disk info, check and export work while it runs), or end it first: tagalong engine stop")
	case errors.Is(err, vmdisk.ErrNoDisk):
		return say(api.CodeNotFound, fmt.Sprintf("There is no disk in %s.", dir), "Name the directory that has its base.raw and its journal.")
	case errors.Is(err, vmdisk.ErrExists):
		return say(api.CodeConflict, fmt.Sprintf("There is a disk in %s already.", dir), "Name another directory, or remove that one.")
	case errors.Is(err, vmdisk.ErrVersion):
		return say(api.CodeConflict, fmt.Sprintf("The disk in %s was written by a newer version of Tagalong.", dir), "Use that version, or a later one.")
	case errors.Is(err, vmdisk.ErrCorrupt):
		return say(api.CodeDamaged, fmt.Sprintf("The disk in %s is damaged.", dir), "Its base.raw may still be of use: copy it away before you try anything. The cause names the file.")
	case errors.Is(err, vmdisk.ErrIncomplete):
		return say(api.CodeConflict, fmt.Sprintf("The disk in %s isn't whole: its first copy hasn't ended.", dir), "Let the engine fetch the rest: tagalong engine")
	case errors.Is(err, vmdisk.ErrRange):
		return say(api.CodeUsage, "A disk can't have that size.", "Give 4 KiB to 16 TiB, for instance --size 20G.")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return say(api.CodeSpace, "This device's disk is too full.", "Free some space and try again.")
	case errors.Is(err, nbd.ErrInUse):
		return say(api.CodeBusy, "Another program serves that socket.", "Choose another one with --socket.")
	case errors.Is(err, nbd.ErrUnsafeDir):
		return say(api.CodeUsage, "The socket's directory is open to other users: they could read and write the disk.",
			"Choose one that only you can enter, for instance after: mkdir -m 700 ~/nbd")
	case errors.Is(err, nbd.ErrPathTooLong):
		return say(api.CodeUsage, "The socket's path is too long.", "Give one of at most 103 bytes, for instance below /tmp.")
	case errors.Is(err, nbd.ErrNotSocket):
		return say(api.CodeUsage, "There is a file at the socket's path.", "Choose another one with --socket.")
	case errors.Is(err, fs.ErrPermission):
		return say(api.CodeRefused, fmt.Sprintf("The system doesn't let you use the disk in %s.", dir), "Check who owns its directory and files: they must be yours.")
	default:
		return say(api.CodeInternal, fmt.Sprintf("The disk in %s can't be used.", dir), "")
	}
}
