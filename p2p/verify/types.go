package verify

import (
	"context"
	"errors"

	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened.
const Protocol = "/tagalong/verify/1"

// Version is the protocol version in Hello.
const Version = 1

// What is compared, in bytes. Each is 64 of the one before.
const (
	LeafSize   = 64 << 10
	RegionSize = 64 * LeafSize
	SpanSize   = 64 * RegionSize

	fan = 64
)

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("verify: protocol violation")
	// ErrHello: the Hello to send is not valid.
	ErrHello = errors.New("verify: bad hello")
	// ErrReplica: the replica couldn't go on; the text is its own.
	ErrReplica = errors.New("verify: replica failed")
	// ErrUnreadable, in the error of a Reader's ReadAt, says that the drive doesn't give what lies there. Any other error ends the work.
	ErrUnreadable = errors.New("verify: unreadable")
	// ErrDetached, in the error of a Look's Reached, says that nothing feeds the copy.
	ErrDetached = errors.New("verify: the copy isn't being fed")
	// ErrBehind: a copy didn't come to where the owner was in time.
	ErrBehind = errors.New("verify: the copy is behind")
)

// Stream is the connection to the peer.
type Stream = wire.Stream

// What owner and replica say first is that of all their protocols; how a disk is read is that of package compare.
type (
	Target   = replica.Target
	State    = replica.State
	Refusal  = replica.Refusal
	Position = replica.Position
	Key      = compare.Key
	Reader   = compare.Reader
	Extent   = compare.Extent
)

// Hello opens the stream: which disk is to be verified, by the owner of which term.
type Hello struct {
	Version int `json:"version"` // set by Open
	Target
	Key Key `json:"key"` // that of the round
}

// Sum is a keyed sum: of zeros for what can't be read.
type Sum [16]byte

// Record is what a disk's own record says of a leaf. The numbers are those on the wire.
type Record uint8

// What a record can say.
const (
	// NoRecord: nothing that counts was recorded, or it was written since.
	NoRecord Record = 0
	// AsRecorded: it is what it was.
	AsRecorded Record = 1
	// NotAsRecorded: it isn't, and nobody has written it.
	NotAsRecorded Record = 2
	// Unreadable: the drive doesn't give it.
	Unreadable Record = 3
)

// LeafState is one leaf of a replica, read just now.
type LeafState struct {
	// Position of the replica before it was read.
	Position Position
	Record   Record
	Sum      Sum
}

// Recorder tells what is recorded: the first 16 bytes of the BLAKE3 hash of the leaf at off. ok is false if nothing counts now.
type Recorder interface {
	Recorded(off int64) (sum [16]byte, ok bool, err error)
}

// Replica is a replica's disk, of the Hello's size, that may move on all the time. Used by one goroutine.
type Replica interface {
	Reader
	Recorder
	// Position that the replica is at, at least, when it returns.
	Position() Position
}

// Disk is the owner's disk. The guest may write it meanwhile.
type Disk interface {
	Reader
	Recorder
	// Look begins to note what is written.
	Look() (Look, error)
	// Resend makes a copy get ranges again, each an offset and a length in bytes.
	Resend(copy string, ranges [][2]int64) error
	// Mend puts p where it was recorded to be, and fails if it wasn't.
	Mend(p []byte, off int64) error
}

// Look notes what is written from its beginning on. See vmdisk.Look, which is one.
type Look interface {
	// Reached waits until the copy has, durably, what n bytes at off were when the look began; it is false, at once, if they were written since.
	Reached(ctx context.Context, copy string, off, n int64) (bool, error)
	// Written says whether they were written until now.
	Written(off, n int64) (bool, error)
	Close()
}

// Copy is a replica as its owner asks it: a *Session. It is asked by one goroutine at a time.
type Copy interface {
	// Span has it read a span, and returns the sum.
	Span(ctx context.Context, i int64) (Sum, error)
	// Regions are the sums of the regions of that span, Leaves those of a region's leaves.
	Regions(ctx context.Context, i int64) ([]Sum, error)
	Leaves(ctx context.Context, region int64) ([]Sum, error)
	// Leaf has it read a leaf.
	Leaf(ctx context.Context, leaf int64) (LeafState, error)
}

// count is how many units of that size n bytes are; the last may be shorter.
func count(n, unit int64) int64 { return (n + unit - 1) / unit }
