package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// kind is a frame's type byte.
type kind uint8

const (
	kindSpan    kind = 0x01
	kindRegions kind = 0x02
	kindLeaves  kind = 0x03
	kindLeaf    kind = 0x04
	kindSums    kind = 0x81
	kindState   kind = 0x82
	kindWorking kind = 0x83
	kindFail    kind = 0x84
)

// ask is a question about one span, region or leaf.
type ask struct {
	kind  kind
	index int64
}

const askSize = 5

func (a ask) appendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(a.kind)), uint32(a.index))
}

// unit is the size of what a question is about, in bytes.
func (k kind) unit() int64 {
	switch k {
	case kindSpan, kindRegions:
		return SpanSize
	case kindLeaves:
		return RegionSize
	case kindLeaf:
		return LeafSize
	}
	return 0
}

// readAsk reads the next question about a disk of that size. io.EOF says that the stream ended before one.
func readAsk(r *bufio.Reader, size int64) (ask, error) {
	var b [askSize]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return ask{}, err
	}
	if _, err := io.ReadFull(r, b[1:]); err != nil {
		return ask{}, wire.CutShort(err)
	}
	a := ask{kind(b[0]), int64(binary.BigEndian.Uint32(b[1:]))}
	unit := a.kind.unit()
	if unit == 0 {
		return ask{}, fmt.Errorf("frame type 0x%02x from the owner: %w", b[0], ErrProtocol)
	}
	if a.index >= count(size, unit) {
		return ask{}, fmt.Errorf("question 0x%02x for number %d of a disk of %d bytes: %w", b[0], a.index, size, ErrProtocol)
	}
	return a, nil
}

func appendSums(b []byte, sums ...Sum) []byte {
	b = binary.BigEndian.AppendUint16(append(b, byte(kindSums)), uint16(len(sums)))
	for _, s := range sums {
		b = append(b, s[:]...)
	}
	return b
}

const stateSize = 8 + 8 + 1 + 16

func appendState(b []byte, s LeafState) []byte {
	b = binary.BigEndian.AppendUint64(append(b, byte(kindState)), s.Position.Term)
	b = binary.BigEndian.AppendUint64(b, s.Position.Barrier)
	b = append(b, byte(s.Record))
	return append(b, s.Sum[:]...)
}

func appendFail(b []byte, text string) []byte {
	text = replica.Clip(text)
	b = binary.BigEndian.AppendUint16(append(b, byte(kindFail)), uint16(len(text)))
	return append(b, text...)
}

// errWorking: the answer takes a while longer.
var errWorking = errors.New("verify: the replica is working")

// readSums reads an answer of exactly want sums, or errWorking.
func readSums(r *bufio.Reader, want int64) ([]Sum, error) {
	if err := readKind(r, kindSums); err != nil {
		return nil, err
	}
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, wire.CutShort(err)
	}
	if n := binary.BigEndian.Uint16(b[:]); int64(n) != want {
		return nil, fmt.Errorf("%d sums instead of %d: %w", n, want, ErrProtocol)
	}
	sums := make([]Sum, want)
	for i := range sums {
		if _, err := io.ReadFull(r, sums[i][:]); err != nil {
			return nil, wire.CutShort(err)
		}
	}
	return sums, nil
}

// readState reads the state of a leaf, or errWorking.
func readState(r *bufio.Reader) (s LeafState, err error) {
	if err := readKind(r, kindState); err != nil {
		return s, err
	}
	var b [stateSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return s, wire.CutShort(err)
	}
	s.Position = Position{Term: binary.BigEndian.Uint64(b[:]), Barrier: binary.BigEndian.Uint64(b[8:])}
	s.Record = Record(b[16])
	copy(s.Sum[:], b[17:])
	if s.Record > Unreadable || (s.Record == Unreadable) != (s.Sum == Sum{}) {
		return s, fmt.Errorf("record %d of a leaf with the sum %x: %w", s.Record, s.Sum, ErrProtocol)
	}
	return s, nil
}

// readKind reads the type of the next frame, which must be want.
func readKind(r *bufio.Reader, want kind) error {
	t, err := r.ReadByte()
	switch {
	case err != nil:
		return wire.CutShort(err)
	case kind(t) == kindWorking:
		return errWorking
	case kind(t) == kindFail:
		return readFail(r)
	case kind(t) != want:
		return fmt.Errorf("frame type 0x%02x from the replica: %w", t, ErrProtocol)
	}
	return nil
}

func readFail(r *bufio.Reader) error {
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return wire.CutShort(err)
	}
	n := int(binary.BigEndian.Uint16(b[:]))
	if n > replica.MaxText {
		return fmt.Errorf("failure text of %d bytes: %w", n, ErrProtocol)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return wire.CutShort(err)
	}
	return fmt.Errorf("%w: %q", ErrReplica, text)
}
