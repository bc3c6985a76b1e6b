package mirror

import (
	"context"
	"sync/atomic"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened.
const Protocol = "/tagalong/mirror/1"

// Version is the protocol version in Hello. Version 2 has copies to whole replicas.
const Version = 2

// MaxWrite is the most data in one Write frame, in bytes. Send splits longer
// operations.
const MaxWrite = 1 << 20

// Stream is the connection to the peer.
type Stream = wire.Stream

// What owner and replica say first is that of all their protocols.
type (
	ID       = replica.ID
	Position = replica.Position
	Target   = replica.Target
	State    = replica.State
	Refusal  = replica.Refusal
)

// Limits of a disk, in bytes.
const (
	Block   = replica.Block
	MaxSize = replica.MaxSize
)

// Hello opens the stream: which disk is to be mirrored, by the owner of which term.
type Hello struct {
	Version int `json:"version"` // set by Send
	Target
}

// Kind says what an Op does. The numbers are those on the wire.
type Kind uint8

// The kinds of operations.
const (
	Begin      Kind = 0x01 // uses Copy
	Write      Kind = 0x02 // uses Off, Data (and Len, if not zero, must be its length)
	Zero       Kind = 0x03 // uses Off, Len
	Checkpoint Kind = 0x04 // uses Pos
	Barrier    Kind = 0x05 // uses Pos
)

// Op is one operation of the owner's disk. Done, if not nil, is called once
// when Data is no longer needed, whether or not it was sent.
type Op struct {
	Kind     Kind
	Off, Len int64
	Data     []byte
	Pos      Position
	Copy     [16]byte
	Done     func()
}

// Source is the feed of the owner's disk. Next and Acked are called from two
// goroutines.
type Source interface {
	// Next returns the next operation, waiting for it until ctx ends. io.EOF
	// ends the stream in order: everything is sent and acknowledged first.
	Next(ctx context.Context) (Op, error)
	// Acked reports that the replica has everything up to pos durably. It must
	// not block.
	Acked(pos Position)
}

// Sink is the replica's disk. Its methods are called one at a time. p is valid
// only during the call. What Checkpoint and Barrier were given is durable when
// they return.
type Sink interface {
	Begin(copy [16]byte) error
	Write(off int64, p []byte) error
	Zero(off, n int64) error
	Checkpoint(Position) error
	Barrier(Position) error
}

// Waiter is a Sink that may need time before it can begin a copy. Await is called before Begin, and returns when that may be called, or with ctx's cause.
type Waiter interface {
	Await(ctx context.Context) error
}

// Stats counts what went over one or more streams. Nil is fine where a *Stats
// is taken.
type Stats struct {
	Sent     atomic.Int64 // bytes written to streams, handshake excluded
	Received atomic.Int64 // bytes read from streams, handshake excluded
	Data     atomic.Int64 // bytes of disk content in Write frames
	Zeroed   atomic.Int64 // bytes covered by Zero frames
	Markers  atomic.Int64 // barriers and checkpoints
}
