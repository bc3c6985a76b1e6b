package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

// MemoryProtocol is the ID under which the memory stream is opened.
const MemoryProtocol = "/tagalong/memory/1"

// Versions of what follows a memory stream's header.
const (
	MemoryRaw    = 1 // bytes as they are
	MemoryFramed = 2 // frames
	// MemoryVersion is the newest.
	MemoryVersion = MemoryFramed
)

// headerTimeout bounds the sending and the receiving of a header.
const headerTimeout = 10 * time.Second

// maxHeader bounds a header, in bytes.
const maxHeader = 4096

// MemHeader says which hand-off a memory stream belongs to.
type MemHeader struct {
	// Version is one that both ends know: the giver takes the newest that the taker's Facts name. 0 is MemoryRaw.
	Version int    `json:"version"`
	VM      string `json:"vm"`
	Attempt string `json:"attempt"`
}

// OpenMemory sends the header over s, and takes s over. On error it was reset. What is sent is compressed in at most so many lanes (flow.Lanes), in one at least.
func OpenMemory(ctx context.Context, s Stream, h MemHeader, lanes int) (*Memory, error) {
	h.Version = max(h.Version, MemoryRaw)
	err := h.check()
	if err == nil {
		done := wire.Bound(ctx, s.SetWriteDeadline, headerTimeout)
		err = done(wire.WriteJSON(s, h))
	}
	if err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("handoff: open memory stream: %w", err)
	}
	return newMemory(s, h.Version, max(lanes, 1)), nil
}

// AcceptMemory reads the header from s, and takes s over. On error it was reset. A version that this device doesn't know is ErrHeader.
func AcceptMemory(ctx context.Context, s Stream) (MemHeader, *Memory, error) {
	done := wire.Bound(ctx, s.SetReadDeadline, headerTimeout)
	var h MemHeader
	err := wire.ReadJSON(s, maxHeader, &h)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err = done(err); err == nil {
		err = h.check()
	}
	if err != nil {
		_ = s.Reset()
		return MemHeader{}, nil, fmt.Errorf("handoff: accept memory stream: %w", err)
	}
	return h, newMemory(s, h.Version, 0), nil
}

func (h MemHeader) check() error {
	switch {
	case h.Version < MemoryRaw || h.Version > MemoryVersion:
		return fmt.Errorf("version %d: %w", h.Version, ErrHeader)
	case h.VM == "" || len(h.VM) > maxName || h.Attempt == "" || len(h.Attempt) > maxName:
		return fmt.Errorf("VM name of %d bytes, attempt of %d: %w", len(h.VM), len(h.Attempt), ErrHeader)
	}
	return nil
}

// recvError leaves io.EOF as it is.
func recvError(err error) error {
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("handoff: receive: %w", err)
}
