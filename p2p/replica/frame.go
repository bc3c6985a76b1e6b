package replica

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/wire"
)

// What the frames of compare and verify have in common: a type byte and, big-endian, what belongs to it. Sums of 16 bytes, and the frame with
// which a replica gives up: u16 length, UTF-8 (≤ MaxText bytes).

// SumSize is how long a sum is on the wire, in bytes.
const SumSize = 16

// FailFrame is the type of the frame with which a replica says why it can't go on.
const FailFrame = 0x84

// AppendFail appends the frame with which a replica gives up; the text is clipped to MaxText bytes.
func AppendFail(b []byte, text string) []byte {
	text = Clip(text)
	b = binary.BigEndian.AppendUint16(append(b, FailFrame), uint16(len(text)))
	return append(b, text...)
}

// ReadType reads the type of the next frame. What follows a FailFrame is read, too: it is an error that wraps failed, or violation if there is more
// of it than there may be.
func ReadType(r *bufio.Reader, failed, violation error) (byte, error) {
	t, err := r.ReadByte()
	if err != nil {
		return 0, wire.CutShort(err)
	}
	if t != FailFrame {
		return t, nil
	}
	var b [2]byte
	if err := ReadFull(r, b[:]); err != nil {
		return t, err
	}
	n := int(binary.BigEndian.Uint16(b[:]))
	if n > MaxText {
		return t, fmt.Errorf("failure text of %d bytes: %w", n, violation)
	}
	text := make([]byte, n)
	if err := ReadFull(r, text); err != nil {
		return t, err
	}
	return t, fmt.Errorf("%w: %q", failed, text)
}

// ReadFull fills b with what a frame goes on with: its end there is none in order.
func ReadFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return wire.CutShort(err)
}

// ReadSums appends n sums to the sums.
func ReadSums[Sum ~[SumSize]byte](r io.Reader, sums []Sum, n int) ([]Sum, error) {
	for range n {
		var b [SumSize]byte
		if err := ReadFull(r, b[:]); err != nil {
			return sums, err
		}
		sums = append(sums, Sum(b))
	}
	return sums, nil
}
