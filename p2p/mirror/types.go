package mirror

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened.
const Protocol = "/tagalong/mirror/1"

// Version is the protocol version in Hello. Version 2 has copies to whole replicas.
const Version = 2

// Block is the unit of offsets and lengths, in bytes.
const Block = 4096

// MaxWrite is the most data in one Write frame, in bytes. Send splits longer
// operations.
const MaxWrite = 1 << 20

// MaxSize is the largest disk, in bytes.
const MaxSize = int64(1) << 46

// Stream is the connection to the peer.
type Stream = wire.Stream

// ID is 16 bytes that travel as hex in JSON.
type ID [16]byte

// MarshalText returns the ID in hex.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText accepts exactly 32 hex digits.
func (id *ID) UnmarshalText(p []byte) error {
	if len(p) != 2*len(id) {
		return fmt.Errorf("ID of %d characters: %w", len(p), wire.ErrMalformed)
	}
	if _, err := hex.Decode(id[:], p); err != nil {
		return fmt.Errorf("ID: %w: %w", wire.ErrMalformed, err)
	}
	return nil
}

// Position says how far a replica has come.
type Position struct {
	Term    uint64 `json:"term"`
	Barrier uint64 `json:"barrier"`
}

// Compare orders positions by term, then barrier.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Term, q.Term), cmp.Compare(p.Barrier, q.Barrier))
}

// Hello opens the stream: which disk is to be mirrored, by the owner of which term.
type Hello struct {
	Version int    `json:"version"` // set by Send
	VM      string `json:"vm"`
	Disk    ID     `json:"disk"`
	Size    int64  `json:"size"` // bytes, a multiple of Block
	Term    uint64 `json:"term"`
}

// State is what the replica has. If Complete, it is the disk at Position. Copy
// names an unfinished copy, and is zero if there is none; its last checkpoint is
// Position if the replica isn't Complete, else Checkpoint.
type State struct {
	Complete   bool     `json:"complete"`
	Position   Position `json:"position"`
	Copy       ID       `json:"copy"`
	Checkpoint Position `json:"checkpoint"`
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

// Stats counts what went over one or more streams. Nil is fine where a *Stats
// is taken.
type Stats struct {
	Sent     atomic.Int64 // bytes written to streams, handshake excluded
	Received atomic.Int64 // bytes read from streams, handshake excluded
	Data     atomic.Int64 // bytes of disk content in Write frames
	Zeroed   atomic.Int64 // bytes covered by Zero frames
	Markers  atomic.Int64 // barriers and checkpoints
}
