// Package gauge finds out what a way to another device carries now: for a short time, one end sends the other random bytes as it would a guest's memory
// (package handoff), and sees how fast they come. Protocol Protocol, one stream a measure; who sends opens it.
//
// What it says is what that link did at that moment beside all else that used it, before anything is compressed: an estimate, and on links so fast that
// Most is through before they are full, too low a one. It guarantees that no more is sent than goes in Lasts, nor than Most,
// that it is kept to the same window as memory (package flow), so that it doesn't hold up who else uses the link, and that who takes one takes no more
// than that either, whatever the other end sends.
//
// To test: go test -race ./p2p/gauge
package gauge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is this protocol's name.
const Protocol = "/tagalong/gauge/1"

const (
	// Lasts is how long bytes are sent, and Most how many.
	Lasts = 700 * time.Millisecond
	Most  = 8 << 20
	// patience bounds a measure in all, on either end, and poll is how often it is looked whether something has come.
	patience = 30 * time.Second
	poll     = 10 * time.Millisecond
	// piece is how many bytes are sent at once.
	piece = 32 << 10
	// attempt stands where a memory stream names its hand-off.
	attempt = "gauge"
)

var (
	// ErrUnknown: it couldn't be found out, as next to nothing came.
	ErrUnknown = errors.New("gauge: the link can't be told")
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("gauge: protocol violation")
)

// Stream is the connection to the other device.
type Stream = wire.Stream

// Send measures the way to the other end of s, in bytes a second. vm is the VM that it is about, for who reads logs. Errors: ErrUnknown, those of the stream and
// ctx. The stream is reset when it returns.
func Send(ctx context.Context, s Stream, vm string) (rate int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := handoff.OpenMemory(ctx, s, handoff.MemHeader{Version: handoff.MemoryFramed, VM: vm, Attempt: attempt}, 1)
	if err != nil {
		return 0, fmt.Errorf("gauge: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = m.Reset() })
	defer stop()
	defer func() { _ = m.Reset() }()
	dense := make([]byte, piece)
	r := rand.NewChaCha8([32]byte{})
	began := time.Now()
	for sent := 0; sent < Most && time.Since(began) < Lasts; sent += piece {
		_, _ = r.Read(dense) // never fails
		if _, err := m.Write(dense); err != nil {
			return 0, fmt.Errorf("gauge: send: %w", errors.Join(ctx.Err(), err))
		}
	}
	for {
		if speed, _ := m.Link(); speed >= 1 {
			return int64(speed), nil
		}
		select { // nothing has come yet
		case <-ctx.Done():
			return 0, ErrUnknown
		case <-time.After(poll):
		}
	}
}

// Take is the other end: it takes in what a Send sends. An end of the stream in the middle is no error. The stream is reset when it returns.
func Take(ctx context.Context, s Stream) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h, m, err := handoff.AcceptMemory(ctx, s)
	if err != nil {
		return fmt.Errorf("gauge: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = m.Reset() })
	defer stop()
	defer func() { _ = m.Reset() }()
	if h.Version != handoff.MemoryFramed || h.Attempt != attempt {
		return fmt.Errorf("gauge: a stream for %.40q: %w", h.Attempt, ErrProtocol)
	}
	n, _ := io.Copy(io.Discard, io.LimitReader(m, Most+piece))
	if n >= Most+piece {
		return fmt.Errorf("gauge: more than %d bytes: %w", Most, ErrProtocol)
	}
	return nil
}
