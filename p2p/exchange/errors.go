package exchange

import "errors"

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("exchange: protocol violation")
	// ErrTooMany: more than MaxKeys records, here or at the peer.
	ErrTooMany = errors.New("exchange: too many records")
	// ErrRecord: a record that exceeds the limits or has no key.
	ErrRecord = errors.New("exchange: bad record")
)
