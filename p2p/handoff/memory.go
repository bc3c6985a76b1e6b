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

// MemoryVersion is the version in MemHeader.
const MemoryVersion = 1

// headerTimeout bounds the sending and the receiving of a header.
const headerTimeout = 10 * time.Second

// maxHeader bounds a header, in bytes.
const maxHeader = 4096

// MemHeader says which hand-off a memory stream belongs to.
type MemHeader struct {
	Version int    `json:"version"` // set by OpenMemory
	VM      string `json:"vm"`
	Attempt string `json:"attempt"`
}

// OpenMemory sends the header over s, after which s carries raw bytes.
func OpenMemory(ctx context.Context, s Stream, h MemHeader) error {
	h.Version = MemoryVersion
	if err := h.check(); err != nil {
		return fmt.Errorf("handoff: open memory stream: %w", err)
	}
	done := wire.Bound(ctx, s.SetWriteDeadline, headerTimeout)
	if err := done(wire.WriteJSON(s, h)); err != nil {
		return fmt.Errorf("handoff: open memory stream: %w", err)
	}
	return nil
}

// AcceptMemory reads the header from s and not a byte more.
func AcceptMemory(ctx context.Context, s Stream) (MemHeader, error) {
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
		return MemHeader{}, fmt.Errorf("handoff: accept memory stream: %w", err)
	}
	return h, nil
}

func (h MemHeader) check() error {
	switch {
	case h.Version != MemoryVersion:
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
