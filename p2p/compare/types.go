package compare

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened, ProtocolV1 that of version 1.
const (
	Protocol   = "/tagalong/compare/2"
	ProtocolV1 = "/tagalong/compare/1"
)

// Version is the protocol version in Hello. Version 1 has no leaves.
const Version = 2

const (
	// Block and Region are what is compared, in bytes.
	Block  = replica.Block
	Region = 4 << 20
	// Leaf is between the two.
	Leaf = 64 << 10
	// MaxSize is the largest disk, in bytes.
	MaxSize = replica.MaxSize

	regionBlocks = Region / Block
	regionLeaves = Region / Leaf
	leafBlocks   = Leaf / Block
)

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("compare: protocol violation")
	// ErrHello: the Hello to send is not valid.
	ErrHello = errors.New("compare: bad hello")
	// ErrReplica: the replica couldn't go on; the text is its own.
	ErrReplica = errors.New("compare: replica failed")
)

// Stream is the connection to the peer.
type Stream = wire.Stream

// What owner and replica say first is that of all their protocols.
type (
	Target  = replica.Target
	State   = replica.State
	Refusal = replica.Refusal
)

// Key is the key of all sums of one stream.
type Key [32]byte

// MarshalText returns the key in hex.
func (k Key) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText accepts exactly 64 hex digits.
func (k *Key) UnmarshalText(p []byte) error {
	if len(p) != 2*len(k) {
		return fmt.Errorf("key of %d characters: %w", len(p), wire.ErrMalformed)
	}
	if _, err := hex.Decode(k[:], p); err != nil {
		return fmt.Errorf("key: %w: %w", wire.ErrMalformed, err)
	}
	return nil
}

// Hello opens the stream: which disk is to be compared, by the owner of which term.
type Hello struct {
	// Version is 1 on a stream of ProtocolV1; Run sets it otherwise.
	Version int `json:"version"`
	Target
	Key Key `json:"key"` // set by Run
}

// Extent is a run of Len > 0 bytes. Of a Hole it is known that it reads as zeros.
type Extent struct {
	Len  int64
	Hole bool
}

// Reader is a disk of the Hello's size, read by one goroutine.
type Reader interface {
	// ReadAt fills p from off.
	ReadAt(p []byte, off int64) error
	// Extents says, in order and from off on, where there is data and where there are holes. It covers at least one byte of
	// the n > 0 that were asked for, and at most all.
	Extents(off, n int64) ([]Extent, error)
}

// Disk is the owner's disk, with what it knows of the replica. Next is called from another goroutine than the rest.
type Disk interface {
	Reader
	// Next is the first run of bytes from off on that the replica may lack; n is 0 if there is none.
	Next(off int64) (from, n int64)
	// Equal says that the replica has these bytes, whole blocks, as they were read since Run opened the disk.
	Equal(off, n int64) error
}

// Stats counts what went over one or more streams. Nil is fine where a *Stats is taken.
type Stats struct {
	Sent     atomic.Int64 // bytes written to streams, handshake excluded
	Received atomic.Int64 // bytes read from streams, handshake excluded
	Read     atomic.Int64 // bytes of the own disk that were read
	Compared atomic.Int64 // bytes of the disk that are done with (an owner's), holes included
}

// regionsOf is how many regions a disk has; the last may be shorter.
func regionsOf(size int64) int64 { return (size + Region - 1) / Region }
