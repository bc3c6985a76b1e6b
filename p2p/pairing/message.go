package pairing

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"tagalong.org/tagalong/p2p/wire"
)

// The types of messages.
const (
	msgHello    byte = 0x01
	msgShare    byte = 0x02
	msgConfirm  byte = 0x03
	msgIdentity byte = 0x04 // sealed
	msgDone     byte = 0x05 // sealed
	msgStored   byte = 0x06 // sealed
	msgReject   byte = 0x7f // a code, unprotected: a hint for the person, no more
)

// The codes of a reject.
const (
	rejectWrongCode byte = 1
	rejectClosed    byte = 2
	rejectIdentity  byte = 3
	rejectFailed    byte = 4
	rejectSelf      byte = 5
)

// magic begins a hello; its last byte is the version.
const magic = "tagalong pairing\x01"

const (
	nonceLen = 16
	macLen   = 64
	// sealedMax bounds a sealed message: an identity with its JSON around it.
	sealedMax = maxIdentity + 4096
)

// line is one connection with its messages. Only one goroutine uses it.
type line struct {
	c         net.Conn
	said      []byte // everything plain that was sent and received, in order
	send, get *sealer
}

// sealer protects one direction.
type sealer struct {
	aead cipher.AEAD
	next uint64
}

// nonce numbers the messages of a direction; the key is used for nothing else.
func (s *sealer) nonce() []byte {
	n := make([]byte, s.aead.NonceSize())
	binary.BigEndian.PutUint64(n[len(n)-8:], s.next)
	s.next++
	return n
}

// write sends a plain message.
func (l *line) write(kind byte, p []byte) error {
	m := append([]byte{kind}, p...)
	if kind != msgReject {
		l.said = appendLV(l.said, m)
	}
	return wire.WriteFrame(l.c, m)
}

// read gets a plain message of exactly n bytes.
func (l *line) read(kind byte, n int) ([]byte, error) {
	m, err := l.frame(kind, n)
	if err != nil {
		return nil, err
	}
	if len(m) != 1+n {
		return nil, fmt.Errorf("message %d of %d bytes: %w", kind, len(m), ErrProtocol)
	}
	l.said = appendLV(l.said, m)
	return m[1:], nil
}

// writeSealed sends a sealed message.
func (l *line) writeSealed(kind byte, p []byte) error {
	head := []byte{kind}
	return wire.WriteFrame(l.c, l.send.aead.Seal(head, l.send.nonce(), p, []byte{kind}))
}

// readSealed gets a sealed message.
func (l *line) readSealed(kind byte) ([]byte, error) {
	m, err := l.frame(kind, sealedMax)
	if err != nil {
		return nil, err
	}
	p, err := l.get.aead.Open(nil, l.get.nonce(), m[1:], []byte{kind})
	if err != nil {
		return nil, fmt.Errorf("message %d was altered: %w", kind, ErrProtocol)
	}
	return p, nil
}

// frame reads a message of at most n bytes beside its type, which must be kind,
// or the other side's reject.
func (l *line) frame(kind byte, n int) ([]byte, error) {
	m, err := wire.ReadFrame(l.c, 1+max(n, 1), nil)
	switch {
	case errors.Is(err, wire.ErrTooLarge):
		return nil, fmt.Errorf("message too long: %w", ErrProtocol)
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case len(m) == 2 && m[0] == msgReject:
		return nil, rejected(m[1])
	case len(m) == 0 || m[0] != kind:
		return nil, fmt.Errorf("message %d expected: %w", kind, ErrProtocol)
	}
	return m, nil
}

// rejected is the error that a reject's code stands for.
func rejected(code byte) error {
	switch code {
	case rejectWrongCode:
		return ErrWrongCode
	case rejectClosed:
		return ErrClosed
	case rejectIdentity:
		return fmt.Errorf("the other device refused ours: %w", ErrIdentity)
	case rejectFailed:
		return ErrPeerFailed
	case rejectSelf:
		return ErrSelf
	}
	return fmt.Errorf("rejected with unknown code %d: %w", code, ErrProtocol)
}

// reject tells the other side why this one ends, as far as it may know. That
// it arrives doesn't matter.
func (l *line) reject(err error) {
	code := byte(0)
	switch {
	case errors.Is(err, ErrWrongCode), errors.Is(err, ErrTooManyTries):
		code = rejectWrongCode
	case errors.Is(err, ErrClosed):
		code = rejectClosed
	case errors.Is(err, ErrSelf):
		code = rejectSelf
	case errors.Is(err, ErrIdentity):
		code = rejectIdentity
	case errors.Is(err, errStore):
		code = rejectFailed
	default:
		return
	}
	_ = l.write(msgReject, []byte{code})
}
