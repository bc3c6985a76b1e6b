package handoff

import "errors"

var (
	// ErrUnknownType: a message of a type that this version doesn't know. The
	// connection goes on.
	ErrUnknownType = errors.New("handoff: unknown message type")
	// ErrMalformed: a message that makes no sense. The connection goes on
	// unless it says otherwise by itself.
	ErrMalformed = errors.New("handoff: malformed message")
	// ErrHeader: the memory stream's header makes no sense or has another version.
	ErrHeader = errors.New("handoff: bad memory header")
)
