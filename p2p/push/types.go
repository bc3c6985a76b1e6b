package push

import (
	"context"
	"iter"
	"sync/atomic"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened.
const Protocol = "/tagalong/push/1"

// Version is the protocol version in Hello.
const Version = 1

// Stream is the connection to the peer.
type Stream = wire.Stream

// What both ends say first is that of all protocols about a replica.
type (
	ID       = replica.ID
	Position = replica.Position
	Target   = replica.Target
	State    = replica.State
	Refusal  = replica.Refusal
)

// Sizes in bytes.
const (
	Block  = replica.Block
	Region = 4 << 20 // the unit of order, and the most that one frame is about
)

// regionBlocks is how many blocks a region has.
const regionBlocks = Region / Block

// Hello opens the stream: which disk is pushed, in the name of which term, and which cut of it.
type Hello struct {
	Version int `json:"version"` // set by Send
	Target
	Cut Position `json:"cut"`
}

// Extent is a run of bytes that are or aren't a hole.
type Extent struct {
	Len  int64
	Hole bool // reads as zeros, and takes no space
}

// Source is the cut to be sent. Its methods are called one at a time.
type Source interface {
	// Next is the first run of whole blocks, from the byte off on, in which the cut may differ from the receiver's disk at the
	// position that it said (from zeros, if its disk isn't whole); n is 0 if there is none. What it leaves out is never sent.
	Next(off int64) (from, n int64)
	// Extents tells the holes from off on, for at most n bytes; at least one extent.
	Extents(off, n int64) ([]Extent, error)
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// Done says that the receiver has the n bytes at off durably: they are not read any more. It is told in whole regions.
	Done(off, n int64)
}

// Heat tells how hot the writes of a region of Region bytes are: when it was last written, or how often. Only the order of the numbers
// counts; 0 is the coldest.
type Heat interface {
	Heat(region int64) uint64
}

// Work is what a sender has to send.
type Work struct {
	Source Source
	// Exact says that Source.Next tells what was written since, and doesn't guess by regions, or everything.
	Exact bool
	// Heat may be nil: then the order is that of the disk.
	Heat Heat
}

// Pace limits how fast a sender sends, or a receiver takes. Wait returns when n more bytes may be moved, or with ctx's error. (*throttle.Limit is
// one.) A receiver's must let 4 KiB pass every minute at least, or its sender takes it for gone.
type Pace interface {
	Wait(ctx context.Context, n int64) error
}

// Sink is the receiver's disk. Its methods are called one at a time. p is valid only during the call. What Checkpoint and Barrier were
// given is durable when they return.
type Sink interface {
	// Held tells, in order, runs of whole blocks (offset, length, in bytes) that hold what an unfinished copy brought, or, if the disk isn't
	// whole, anything but zeros. More than that is no harm. It is called once, before Begin.
	Held() iter.Seq2[int64, int64]
	// Begin starts a copy, or goes on with the one of that name. To a whole disk it stays invisible until Barrier.
	Begin(copy [16]byte) error
	// ReadAt reads the disk as it would be if the copy ended now.
	ReadAt(p []byte, off int64) error
	// Write takes at most MaxBatch bytes.
	Write(off int64, p []byte) error
	Zero(off, n int64) error
	// Checkpoint makes durable what came so far. pos is that of the cut.
	Checkpoint(pos Position) error
	// Barrier makes the disk what it is at pos, in one step.
	Barrier(pos Position) error
}

// Index finds blocks by their content on the receiver's other disks, or elsewhere on this one. Have returns Block bytes whose BLAKE3 hash is
// sum; what it returns is checked, so that the index may be old. They are valid until the next call.
type Index interface {
	Have(sum [32]byte) (data []byte, ok bool)
}

// Replica is what a receiver receives into.
type Replica struct {
	Sink Sink
	// Index may be nil.
	Index Index
	// Pace limits how fast the sender may send, in bytes on the wire: it hears of what it sent only as fast as this lets it; nil is no limit.
	Pace Pace
}

// MaxBatch is the most content in one frame, and in one call of Sink.Write, in bytes.
const MaxBatch = batchBlocks * Block

const batchBlocks = 64

// Stats counts what one or more streams did, in bytes. Nil is fine where a *Stats is taken.
type Stats struct {
	Sent      atomic.Int64 // written to streams, handshake excluded
	Received  atomic.Int64 // read from streams, handshake excluded
	Content   atomic.Int64 // of the disk that went as content, before compression
	Zeroed    atomic.Int64 // of the disk that went as zero runs
	Same      atomic.Int64 // of the disk that the receiver was asked about and didn't need
	Elsewhere atomic.Int64 // of these what it found in its index; receiver only
	Todo      atomic.Int64 // of the disk that there were to send, or to make sure of, when the last stream began; sender only
	Covered   atomic.Int64 // of these what is durable at the receiver; sender only
}

// regionsOf is how many regions a disk has.
func regionsOf(size int64) int64 { return (size + Region - 1) / Region }

// blocksOf is how many blocks the region r has.
func blocksOf(size, r int64) int { return int(min(Region, size-r*Region) / Block) }
