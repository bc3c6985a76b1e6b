package disktool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
	"tagalong.org/tagalong/vmdisk/vfs"
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
		return say(api.CodeBusy, fmt.Sprintf("The disk in %s is in use, %s.", dir, holder(err)),
			"Ask the engine (tagalong disk info, check and export work while it runs), or end it first: tagalong engine stop")
	case errors.Is(err, vmdisk.ErrNotDir):
		return say(api.CodeUsage, dir+" isn't a directory.", "Name the directory that has the disk's base.raw and its journal.")
	case errors.Is(err, vmdisk.ErrNotFile):
		return say(api.CodeConflict, fmt.Sprintf("One of the files of the disk in %s isn't a plain file.", dir),
			"The cause names it. Put the file itself there: Tagalong follows no links and opens no pipes or devices.")
	case errors.Is(err, vmdisk.ErrNoJournal):
		return say(api.CodeDamaged, fmt.Sprintf("The disk in %s has lost its journal.", dir),
			fmt.Sprintf("Its base.raw is still there: make a new disk of it with: tagalong disk create NEWDIR --from %s", filepath.Join(dir, "base.raw")))
	case errors.Is(err, vmdisk.ErrNoBase):
		return say(api.CodeDamaged, fmt.Sprintf("The disk in %s has no base.raw: its content is missing.", dir),
			"If it was moved away, move it back. Otherwise remove the disk, and let another device copy its own here.")
	case errors.Is(err, vmdisk.ErrBaseSize):
		return say(api.CodeDamaged, fmt.Sprintf("The base.raw of the disk in %s isn't as long as the disk: something else changed it.", dir),
			"The cause has the numbers. Put the file back as it was, from a backup, or let another device copy its own here.")
	case errors.Is(err, vmdisk.ErrNoDisk):
		return say(api.CodeNotFound, fmt.Sprintf("There is no disk in %s.", dir), "Name the directory that has its base.raw and its journal.")
	case errors.Is(err, vmdisk.ErrExists):
		return say(api.CodeConflict, fmt.Sprintf("There is a disk in %s already.", dir), "Name another directory, or remove that one.")
	case errors.Is(err, vmdisk.ErrVersion):
		return say(api.CodeConflict, fmt.Sprintf("The disk in %s was written by a newer version of Tagalong.", dir), "Use that version, or a later one.")
	case errors.Is(err, vmdisk.ErrForeign):
		return say(api.CodeDamaged, fmt.Sprintf("The disk in %s has a file that isn't Tagalong's, or is damaged.", dir),
			"The cause names it. If another program put it there, move it away and put the right one back.")
	case errors.Is(err, vmdisk.ErrCorrupt):
		return say(api.CodeDamaged, fmt.Sprintf("The disk in %s is damaged.", dir), "Its base.raw may still be of use: copy it away before you try anything. The cause names the file.")
	case errors.Is(err, vmdisk.ErrIncomplete):
		return say(api.CodeConflict, fmt.Sprintf("The disk in %s isn't whole: its first copy hasn't ended.", dir), "Let the engine fetch the rest: tagalong engine")
	case errors.Is(err, vmdisk.ErrCutLost):
		return say(api.CodeSpace, "The VM wrote so much meanwhile that there was no room left to keep what the copy still needed.",
			"Free some space on this device, or try again when the VM writes less.")
	case errors.Is(err, vmdisk.ErrHydrating), errors.Is(err, vmdisk.ErrStale):
		return say(api.CodeConflict, fmt.Sprintf("The disk in %s lacks blocks that another device has.", dir),
			"Let the engine fetch them first: tagalong engine. How much is missing, and what it was before (which can be exported with --position), says: tagalong disk info")
	case errors.Is(err, vmdisk.ErrPast):
		return say(api.CodeConflict, fmt.Sprintf("What the disk in %s was before isn't held any more: all of it has been fetched meanwhile.", dir),
			"Export what it is now, without --position.")
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
		return say(api.CodeRefused, fmt.Sprintf("The system doesn't let you use the disk in %s.", dir),
			"Check who owns its directory and files: they must be yours, readable and writable. The cause names the one.")
	case errors.Is(err, syscall.EROFS):
		return say(api.CodeRefused, fmt.Sprintf("The disk in %s is on a file system that can only be read.", dir),
			"If that came by itself the drive may be failing: copy base.raw away first, then ask the system's log why.")
	case errors.Is(err, syscall.EIO):
		return say(api.CodeDamaged, fmt.Sprintf("The drive that has the disk in %s can't read or write a part of it.", dir),
			fmt.Sprintf("The drive may be failing: copy what you need away, then see what is lost with: tagalong disk check %s", dir))
	default:
		return say(api.CodeInternal, fmt.Sprintf("The disk in %s can't be used.", dir), "")
	}
}

// holder says who has a disk open.
func holder(err error) string {
	var held *vfs.LockedError
	switch {
	case !errors.As(err, &held):
		return "most likely by the engine"
	case held.PID == os.Getpid():
		return "by this very process"
	default:
		return fmt.Sprintf("by process %d, most likely the engine", held.PID)
	}
}
