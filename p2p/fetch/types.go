package fetch

import (
	"errors"
	"fmt"
	"sync/atomic"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is the ID under which the stream is opened.
const Protocol = "/tagalong/fetch/1"

// Version is the protocol version in Hello.
const Version = 1

const (
	// Block is the unit of offsets and lengths, in bytes.
	Block = replica.Block
	// MaxWant is the most that is asked for at once, in bytes.
	MaxWant = 256 << 10
	// MaxSize is the largest disk, in bytes.
	MaxSize = replica.MaxSize
)

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("fetch: protocol violation")
	// ErrHello: the Hello to send is not valid.
	ErrHello = errors.New("fetch: bad hello")
	// ErrRange: no whole blocks of the disk, or more than MaxWant bytes.
	ErrRange = errors.New("fetch: bad range")
	// ErrNotHere, from a Reader: this device lacks that part of the disk itself.
	ErrNotHere = errors.New("fetch: the holder lacks that")
	// ErrOver, from a Reader: it can't be read any more as it was at the position that the asker was told.
	ErrOver = errors.New("fetch: the holder has moved")
	// ErrRead: the holder couldn't read it.
	ErrRead = errors.New("fetch: the holder can't read that")
	// ErrStalled: the holder answers nothing, though its connection holds.
	ErrStalled = errors.New("fetch: the holder doesn't answer")
	// ErrNoHolder: nobody who has it is there, or nobody could give it. Passing: holders come back.
	ErrNoHolder = errors.New("fetch: no holder has it now")
	// ErrAbsent, in an AbsentError: nobody is there who has it. Before somebody comes it is no use to ask again.
	ErrAbsent = errors.New("fetch: nobody who is there has it")
	// ErrClosed: the Pool was closed.
	ErrClosed = errors.New("fetch: closed")
)

// AbsentError is an ErrNoHolder and an ErrAbsent for Len bytes at Off of what was wanted: others of it may be had.
type AbsentError struct{ Off, Len int64 }

func (e *AbsentError) Error() string {
	return fmt.Sprintf("%d bytes at %d: %v: %v", e.Len, e.Off, ErrNoHolder, ErrAbsent)
}

// Unwrap says what it is.
func (e *AbsentError) Unwrap() []error { return []error{ErrNoHolder, ErrAbsent} }

// Stream is the connection to the peer.
type Stream = wire.Stream

// What asker and holder say first is that of all protocols about a disk.
type (
	ID       = replica.ID
	Position = replica.Position
	Target   = replica.Target
	State    = replica.State
	Refusal  = replica.Refusal
)

// RefuseHistory is the Refusal of a holder whose history doesn't have the position that is asked for.
const RefuseHistory = "history"

// Hello opens the stream: which disk is asked for, by the owner of which term, and at which position: that of the hand-off.
type Hello struct {
	Version int `json:"version"` // set by the Pool
	Target
	At Position `json:"at"`
}

// Reader is a holder's disk at one position, of the Hello's size. ReadAt fills p, whole blocks and at most MaxWant bytes, from
// off; it is called from several goroutines at once. Of its errors ErrNotHere and ErrOver have a meaning for the asker.
type Reader interface {
	ReadAt(p []byte, off int64) error
}

// Stats counts what went over one or more streams, handshakes excluded. Nil is fine where a *Stats is taken.
type Stats struct {
	Wants  atomic.Int64 // answered by content or zeros
	Sorry  atomic.Int64 // answered by a Sorry
	Data   atomic.Int64 // bytes of content in Data frames
	Zeroed atomic.Int64 // bytes covered by Zero frames
}
