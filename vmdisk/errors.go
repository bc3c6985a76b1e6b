package vmdisk

import (
	"errors"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// The errors of this package; they are wrapped, so ask with errors.Is. What the operating system says
// (syscall.ENOSPC, syscall.EIO) passes through the same way.
var (
	// ErrExists: there is a disk, or an unknown base.raw, in the directory already.
	ErrExists = errors.New("vmdisk: there is a disk already")
	// ErrNoDisk: there is no disk in the directory.
	ErrNoDisk = errors.New("vmdisk: no disk here")
	// ErrNoJournal: there is a base.raw without its journal. It is an ErrNoDisk too.
	ErrNoJournal = errors.New("vmdisk: the journal is missing")
	// ErrNoBase: there is a journal without its base.raw.
	ErrNoBase = errors.New("vmdisk: base.raw is missing")
	// ErrBaseSize: base.raw isn't as long as the disk. It is an ErrCorrupt too.
	ErrBaseSize = errors.New("vmdisk: base.raw has another size than the disk")
	// ErrNotDir: the disk's directory isn't one.
	ErrNotDir = vfs.ErrNotDir
	// ErrNotFile: one of the disk's files isn't a plain file, but a directory, a link or a pipe.
	ErrNotFile = vfs.ErrNotFile
	// ErrInUse: the disk is open, here or in another process. If it is known which, there is a *vfs.LockedError too.
	ErrInUse = errors.New("vmdisk: disk in use")
	// ErrClosed: the disk, feed or applier was closed.
	ErrClosed = errors.New("vmdisk: closed")
	// ErrCorrupt: a file is damaged. The text names the file.
	ErrCorrupt = errors.New("vmdisk: damaged")
	// ErrVersion: a file was written by a newer version of this program.
	ErrVersion = errors.New("vmdisk: format is newer than this program")
	// ErrForeign: a file doesn't begin as it must: another program's, or damaged.
	ErrForeign = errors.New("vmdisk: not one of our files")
	// ErrRange: an offset, length or size is outside of what is possible.
	ErrRange = errors.New("vmdisk: out of range")
	// ErrShrink: a disk can't be made smaller.
	ErrShrink = errors.New("vmdisk: a disk can't be made smaller")
	// ErrSize: the peer's replica is smaller than this disk: it has to grow (Reach).
	ErrSize = errors.New("vmdisk: the replica is smaller")
	// ErrFailed: an earlier failure left it unknown what is stored; only opening the disk again helps.
	ErrFailed = errors.New("vmdisk: failed before; open it again")
	// ErrInactive: the disk isn't active, so it can't be written.
	ErrInactive = errors.New("vmdisk: not active")
	// ErrActive: the disk is active, so this can't be done.
	ErrActive = errors.New("vmdisk: active")
	// ErrFenced: writes are fenced off, or the term was given away.
	ErrFenced = errors.New("vmdisk: fenced")
	// ErrNotFenced: this can be done only with writes fenced off.
	ErrNotFenced = errors.New("vmdisk: not fenced")
	// ErrOldTerm: a newer term is known.
	ErrOldTerm = errors.New("vmdisk: old term")
	// ErrOldPosition: a newer position is known.
	ErrOldPosition = errors.New("vmdisk: old position")
	// ErrIncomplete: the replica isn't whole yet.
	ErrIncomplete = errors.New("vmdisk: incomplete")
	// ErrComplete: the replica is whole, so a first copy can't be made.
	ErrComplete = errors.New("vmdisk: complete")
	// ErrApplying: an applier is open.
	ErrApplying = errors.New("vmdisk: being applied to")
	// ErrNoCopy: an incomplete replica got data before Begin, or has nothing to offer.
	ErrNoCopy = errors.New("vmdisk: no first copy begun")
	// ErrMerging: too many layers wait to be merged into base.raw; it works again when that has gone on, for which there must
	// be free space.
	ErrMerging = errors.New("vmdisk: layers are still being merged")
	// ErrAttached: the peer has a feed already.
	ErrAttached = errors.New("vmdisk: peer attached already")
	// ErrDetached: the peer has no feed, or lost it.
	ErrDetached = errors.New("vmdisk: peer not attached")
	// ErrWrongDisk: the peer's disk is another one.
	ErrWrongDisk = errors.New("vmdisk: another disk")
	// ErrDiverged: the peer's replica has, or may have, something that isn't in this disk's history.
	ErrDiverged = errors.New("vmdisk: replica diverged")
	// ErrNotFresh: the disk was used before.
	ErrNotFresh = errors.New("vmdisk: not a fresh disk")
	// ErrTooLate: writes have been accepted since.
	ErrTooLate = errors.New("vmdisk: too late, written since")
	// ErrStale: blocks aren't here yet, and there is nobody to fetch them from. It passes when Hydrate finds a source.
	ErrStale = errors.New("vmdisk: stale, and no source")
	// ErrHydrating: the disk isn't whole, so this can't be done: Hydrate or Rollback first.
	ErrHydrating = errors.New("vmdisk: not whole yet")
	// ErrWhole: nothing is stale, so there is nothing to roll back.
	ErrWhole = errors.New("vmdisk: whole")
	// ErrPast: the position before isn't held any more; the disk has become whole, or was rolled back.
	ErrPast = errors.New("vmdisk: past is gone")
	// ErrCutLost: what a cut needed couldn't be kept, or the guest needed the space. Take another one.
	ErrCutLost = errors.New("vmdisk: cut lost")
	// ErrReleased: this part of a cut was released.
	ErrReleased = errors.New("vmdisk: released")
	// ErrNotRecorded: it isn't what was recorded, or nothing that counts was.
	ErrNotRecorded = errors.New("vmdisk: not what was recorded")
	// ErrMalformed: bytes handed in (a dirty export) make no sense.
	ErrMalformed = errors.New("vmdisk: malformed")
)
