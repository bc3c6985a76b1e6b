package pairing

import "errors"

var (
	// ErrBadCode: what was typed isn't a code: not eight digits.
	ErrBadCode = errors.New("pairing: not a pairing code")
	// ErrWrongCode: the two sides don't have the same code.
	ErrWrongCode = errors.New("pairing: wrong code")
	// ErrTooManyTries: three wrong codes were tried; the window is closed.
	ErrTooManyTries = errors.New("pairing: too many wrong codes")
	// ErrClosed: the offerer's window is closed, or another device was faster.
	ErrClosed = errors.New("pairing: window closed")
	// ErrIdentity: an identity that isn't valid, or not that of its key.
	ErrIdentity = errors.New("pairing: bad identity")
	// ErrSelf: the device met itself.
	ErrSelf = errors.New("pairing: this is the same device")
	// ErrVersion: the other side speaks another version of the protocol.
	ErrVersion = errors.New("pairing: other protocol version")
	// ErrProtocol: the other side sent what the protocol forbids, or somebody
	// altered it on the way.
	ErrProtocol = errors.New("pairing: protocol violation")
	// ErrPeerFailed: the other side could not store the result.
	ErrPeerFailed = errors.New("pairing: the other device could not finish")
	// ErrUnconfirmed: the connection broke after this side had agreed. The
	// offerer may know this device; pairing again is safe.
	ErrUnconfirmed = errors.New("pairing: no confirmation from the other device")
)
