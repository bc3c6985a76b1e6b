// Package mend asks a replica for a small piece of a disk that the owner's drive has lost, by its hash. Protocol Protocol, one
// short stream a piece, opened by the owner.
//
// After the wire greeting:
//
//	owner:   {"vm": …, "off": …, "len": …, "sum": the first 16 bytes of its BLAKE3 hash}
//	replica: {"data": …}, empty if it doesn't have that, or may not say
//
// The owner gets nothing but what it named by hash; the replica reads only its own disk. To test: go test -race ./p2p/mend
package mend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is this protocol's name.
const Protocol = "/tagalong/mend/1"

// MaxPiece is the most that is asked for at once, in bytes.
const MaxPiece = 64 << 10

// answerTimeout bounds the answering of one question.
const answerTimeout = 30 * time.Second

const maxVM = 64 // bytes of a VM's ID

var (
	// ErrNotHere: the replica doesn't have this content there.
	ErrNotHere = errors.New("mend: not there")
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("mend: protocol violation")
)

// Stream is the connection to the other device.
type Stream = wire.Stream

// Piece names a piece of a VM's disk.
type Piece struct {
	VM  string   `json:"vm"`
	Off int64    `json:"off"`
	Len int      `json:"len"`
	Sum [16]byte `json:"sum"`
}

type answer struct {
	Data []byte `json:"data,omitempty"`
}

var greeting = wire.Greeting{Protocol: Protocol, Version: 1, Oldest: 1}

// Ask returns the piece; its hash was checked. The stream is closed or reset when Ask returns. Errors: ErrNotHere, ErrProtocol,
// those of the stream.
func Ask(ctx context.Context, s Stream, p Piece) ([]byte, error) {
	c := wire.NewConn(s)
	var a answer
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Send(ctx, p)
	}
	if err == nil {
		err = c.Recv(ctx, &a)
	}
	switch {
	case err != nil:
	case len(a.Data) == 0:
		err = ErrNotHere
	case !p.is(a.Data):
		err = fmt.Errorf("another content: %w", ErrProtocol)
	}
	if err := end(s, err); err != nil {
		return nil, err
	}
	return a.Data, nil
}

// is says whether b is the piece.
func (p Piece) is(b []byte) bool {
	sum := blake3.Sum256(b)
	return len(b) == p.Len && [16]byte(sum[:16]) == p.Sum
}

// Answer answers one question. read reads the replica of the piece's VM, or fails where that isn't to be had; then, and if the
// content is another one, the owner is told that it isn't there. The stream is closed or reset when it returns.
func Answer(ctx context.Context, s Stream, read func(vm string, b []byte, off int64) error) error {
	ctx, cancel := context.WithTimeout(ctx, wire.GreetTimeout+answerTimeout)
	defer cancel()
	c := wire.NewConn(s)
	var p Piece
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Recv(ctx, &p)
	}
	if err == nil && (p.Len <= 0 || p.Len > MaxPiece || p.Off < 0 || len(p.VM) > maxVM) {
		err = ErrProtocol
	}
	if err == nil {
		var a answer
		if b := make([]byte, p.Len); read(p.VM, b, p.Off) == nil && p.is(b) {
			a.Data = b
		}
		err = c.Send(ctx, a)
	}
	return end(s, err)
}

// end closes the stream, in order or not.
func end(s Stream, err error) error {
	if err == nil || errors.Is(err, ErrNotHere) {
		_ = s.CloseWrite()
		err = errors.Join(err, s.Close())
	} else {
		_ = s.Reset()
	}
	if err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	return nil
}
