package viewer

import (
	"bytes"
	"crypto/des"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// The beginning of VNC's protocol (RFC 6143, section 7.1), as far as a bridge has to speak it: version and security. Everything after is
// passed on as it is.

const (
	rfbVersion = "RFB 003.008\n"
	rfbNone    = 1
	rfbVNC     = 2
)

var (
	errRFB      = errors.New("viewer: not a VNC peer")
	errPassword = errors.New("viewer: wrong password")
)

// respond is the answer to a challenge: DES under the password's first eight letters, whose bits VNC takes in reverse.
func respond(password string, challenge []byte) ([]byte, error) {
	var key [8]byte
	copy(key[:], password)
	for i, b := range key {
		key[i] = bits.Reverse8(b)
	}
	block, err := des.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	out := make([]byte, 16)
	block.Encrypt(out[:8], challenge[:8])
	block.Encrypt(out[8:], challenge[8:16])
	return out, nil
}

// admit is the server's side: whoever is at the other end of c must know the password.
func admit(c io.ReadWriter, password string) error {
	if _, err := io.WriteString(c, rfbVersion); err != nil {
		return err
	}
	var version [12]byte
	if _, err := io.ReadFull(c, version[:]); err != nil {
		return err
	}
	if string(version[:]) != rfbVersion {
		return fmt.Errorf("%w: version %.12q", errRFB, version[:])
	}
	if _, err := c.Write([]byte{1, rfbVNC}); err != nil {
		return err
	}
	var choice [1]byte
	if _, err := io.ReadFull(c, choice[:]); err != nil {
		return err
	}
	if choice[0] != rfbVNC {
		return fmt.Errorf("%w: security %d", errRFB, choice[0])
	}
	challenge := make([]byte, 16)
	_, _ = rand.Read(challenge) // never fails
	if _, err := c.Write(challenge); err != nil {
		return err
	}
	var response [16]byte
	if _, err := io.ReadFull(c, response[:]); err != nil {
		return err
	}
	want, err := respond(password, challenge)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, response[:]) != 1 {
		const why = "wrong password"
		refusal := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, uint32(len(why)))
		_, _ = c.Write(append(refusal, why...)) // it goes either way
		return errPassword
	}
	_, err = c.Write([]byte{0, 0, 0, 0})
	return err
}

// enter is the client's side: QEMU lets us in without a password, or with it.
func enter(c io.ReadWriter, password string) error {
	var version [12]byte
	if _, err := io.ReadFull(c, version[:]); err != nil {
		return err
	}
	if !bytes.HasPrefix(version[:], []byte("RFB ")) {
		return fmt.Errorf("%w: version %.12q", errRFB, version[:])
	}
	if _, err := io.WriteString(c, rfbVersion); err != nil {
		return err
	}
	var n [1]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return err
	}
	kinds := make([]byte, n[0])
	if _, err := io.ReadFull(c, kinds); err != nil {
		return err
	}
	switch {
	case bytes.IndexByte(kinds, rfbNone) >= 0:
		if _, err := c.Write([]byte{rfbNone}); err != nil {
			return err
		}
	case bytes.IndexByte(kinds, rfbVNC) >= 0:
		if _, err := c.Write([]byte{rfbVNC}); err != nil {
			return err
		}
		challenge := make([]byte, 16)
		if _, err := io.ReadFull(c, challenge); err != nil {
			return err
		}
		response, err := respond(password, challenge)
		if err != nil {
			return err
		}
		if _, err := c.Write(response); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: security %v", errRFB, kinds)
	}
	var result [4]byte
	if _, err := io.ReadFull(c, result[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(result[:]) != 0 {
		return errPassword
	}
	return nil
}
