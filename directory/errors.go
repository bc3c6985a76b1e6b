package directory

import "errors"

// Errors of this package, wrapped with the step's name.
var (
	// ErrInUse: another process has this directory open.
	ErrInUse = errors.New("directory is in use by another process")
	// ErrNoSpace: the disk is nearly full. Nothing was written.
	ErrNoSpace = errors.New("too little disk space for the directory")
	// ErrUnsure: a commit failed half-way. It may be durable, or not; doing the
	// same again tells.
	ErrUnsure = errors.New("unknown whether it was stored")
	// ErrClosed: the directory was closed. Nothing was written.
	ErrClosed = errors.New("directory is closed")
	// ErrVersion: written by a newer program.
	ErrVersion = errors.New("unknown newer version")
	// ErrCorrupt: what is stored fails its checksum or contradicts itself.
	ErrCorrupt = errors.New("directory is damaged")
	// ErrInvalid: a record, key, value or argument is malformed or too large.
	ErrInvalid = errors.New("invalid record")
	// ErrUnknownDevice: the sender or writer isn't in the fleet.
	ErrUnknownDevice = errors.New("device is not in the fleet")
	// ErrSignature: the signature doesn't fit.
	ErrSignature = errors.New("bad signature")
	// ErrNotOwner: the writer doesn't own the VM under that term.
	ErrNotOwner = errors.New("not the owner of that term")
	// ErrGap: the chain doesn't reach that far yet; it may be known later.
	ErrGap = errors.New("an earlier transfer is missing")
	// ErrChain: the transfer doesn't follow from the one before.
	ErrChain = errors.New("transfer does not follow from the chain")
	// ErrFork: another transfer for the same term is known. Both are kept.
	ErrFork = errors.New("two transfers for one term")
	// ErrLie: a record or chunk that no honest device makes: it contradicts itself, or what it is about.
	ErrLie = errors.New("cannot be true")
	// ErrFuture: it names a number so high that its writer can't have come to it.
	ErrFuture = errors.New("a number from the future")
	// ErrFull: there are too many records.
	ErrFull = errors.New("directory holds too many records")
	// ErrNotFound: there is nothing under that name.
	ErrNotFound = errors.New("not found")
)
