package verify

import (
	"context"
	"errors"

	"tagalong.org/tagalong/p2p/compare"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened, ProtocolV1 that of version 1.
const (
	Protocol   = "/tagalong/verify/2"
	ProtocolV1 = "/tagalong/verify/1"
)

// Version is the protocol version in Hello. Version 1 has no copies that stand still.
const Version = 2

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
	// ErrVersion: the replica speaks version 1, which a copy that stands still can't be compared with.
	ErrVersion = errors.New("verify: the replica's program is too old")
	// ErrKept, in the error of Replica.Patch, says that the replica isn't where the patch is for, or that its own record speaks for what it has.
	ErrKept = errors.New("verify: the replica keeps what it has")
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
	// Version is 1 on a stream of ProtocolV1; Open sets it otherwise.
	Version int `json:"version"`
	Target
	Key Key `json:"key"` // that of the round
}

// Sum is a keyed sum: of zeros for what can't be read.
type Sum [replica.SumSize]byte

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
	// Position of the replica before it was read; of a Part, while it was.
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
	// Pin holds the replica as it is now, for a moment.
	Pin(ctx context.Context) (Pinned, error)
	// Patch puts content in the place of damage, durably, if the replica is where that is for. Errors: ErrKept.
	Patch(Patch) error
}

// Pinned is a replica at one position.
type Pinned interface {
	Reader
	Position() Position
	Close() error
}

// Patch is right content for a leaf of a copy that stands still.
type Patch struct {
	// At is where the copy stands.
	At   Position
	Leaf int64
	// Content is the leaf's; its blocks that Without has stay what they are there.
	Content []byte
	Without Mask
	// Doubted says that the copy's own record, which says that what it has is right, isn't to be believed.
	Doubted bool
}

// Disk is the owner's disk. The guest may write it meanwhile. What isn't here, because it is still to be fetched, reads as zeros.
type Disk interface {
	Reader
	Recorder
	// Look begins to note what is written.
	Look() (Look, error)
	// Lag is where a copy stands; nil if it is being fed. ErrDetached says that nothing is known of it.
	Lag(copy string) (Lag, error)
	// Heard tells where a copy says it stands. That may not be where it was known to be; the next Lag takes it into account, if it can be.
	Heard(copy string, at Position)
	// Resend makes a copy that is fed get ranges again, each an offset and a length in bytes.
	Resend(copy string, ranges [][2]int64) error
	// Mend puts p where it was recorded to be, and fails if it wasn't.
	Mend(p []byte, off int64) error
}

// Lag is where a copy stands that nothing feeds, and what it lacks there.
type Lag interface {
	Position() Position
	// Lacks are the blocks of a leaf that the copy may lack, or that aren't here.
	Lacks(leaf int64) Mask
	Close()
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

	// The rest is for a copy that stands still. ErrVersion says that it can't.

	// Masked has it read a region, and returns the sums of its leaves without what the masks, one for each, leave out.
	Masked(ctx context.Context, region int64, masks []Mask) ([]Sum, error)
	// Part has it read a leaf, at one position, and returns the sum of it without what the mask leaves out; the record is that of all of it.
	Part(ctx context.Context, leaf int64, without Mask) (LeafState, error)
	// Patch has it replace damage, unless it keeps what it has, and returns what is there then, as Part does.
	Patch(ctx context.Context, p Patch) (LeafState, error)
}

// count is how many units of that size n bytes are; the last may be shorter.
func count(n, unit int64) int64 { return (n + unit - 1) / unit }
