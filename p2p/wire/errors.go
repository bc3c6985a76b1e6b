package wire

import "errors"

// The errors that callers tell apart.
var (
	// ErrTooLarge: a frame, message or blob exceeds the limit of its reader or writer.
	ErrTooLarge = errors.New("wire: message too large")
	// ErrMalformed: the bytes are not what the protocol says.
	ErrMalformed = errors.New("wire: malformed message")
	// ErrVersion: the two ends have no protocol version in common.
	ErrVersion = errors.New("wire: no common protocol version")
	// ErrBroken: an earlier call failed within a message, so that the place of
	// the next one is unknown.
	ErrBroken = errors.New("wire: connection broken by an earlier error")
)
