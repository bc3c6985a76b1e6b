package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/replica"
)

// kind is a frame's type byte; replica.FailFrame is one too.
type kind uint8

const (
	kindSpan    kind = 0x01
	kindRegions kind = 0x02
	kindLeaves  kind = 0x03
	kindLeaf    kind = 0x04
	kindPart    kind = 0x05
	kindMasked  kind = 0x06
	kindPatch   kind = 0x07
	kindSums    kind = 0x81
	kindState   kind = 0x82
	kindWorking kind = 0x83
)

// ask is a question about one span, region or leaf.
type ask struct {
	kind  kind
	index int64
	masks []Mask // one for each leaf that the question is about, of those that have any
	patch Patch  // of kindPatch
}

// flagDoubted in a Patch frame says Patch.Doubted.
const flagDoubted = 1

func (a ask) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, byte(a.kind)), uint32(a.index))
	for _, m := range a.masks {
		b = binary.BigEndian.AppendUint16(b, uint16(m))
	}
	if a.kind != kindPatch {
		return b
	}
	b = binary.BigEndian.AppendUint64(b, a.patch.At.Term)
	b = binary.BigEndian.AppendUint64(b, a.patch.At.Barrier)
	flags := byte(0)
	if a.patch.Doubted {
		flags = flagDoubted
	}
	b = append(b, flags)
	for x := range a.masks[0].blocks(int64(len(a.patch.Content))) {
		b = append(b, a.patch.Content[x:x+Block]...)
	}
	return b
}

// unit is the size of what a question is about, in bytes; masks is how many masks belong to it.
func (k kind) unit() (size int64, masks int) {
	switch k {
	case kindSpan, kindRegions:
		return SpanSize, 0
	case kindLeaves:
		return RegionSize, 0
	case kindMasked:
		return RegionSize, fan
	case kindLeaf:
		return LeafSize, 0
	case kindPart, kindPatch:
		return LeafSize, 1
	}
	return 0, 0
}

// readAsk reads the next question about a disk of that size, in that version. io.EOF says that the stream ended before one.
func readAsk(r *bufio.Reader, size int64, version int) (a ask, err error) {
	var b [5]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return a, err
	}
	a.kind = kind(b[0])
	unit, masks := a.kind.unit()
	if unit == 0 || version == 1 && a.kind > kindLeaf {
		return a, fmt.Errorf("frame type 0x%02x from the owner: %w", b[0], ErrProtocol)
	}
	if err := replica.ReadFull(r, b[1:]); err != nil {
		return a, err
	}
	a.index = int64(binary.BigEndian.Uint32(b[1:]))
	if a.index >= count(size, unit) {
		return a, fmt.Errorf("question 0x%02x for number %d of a disk of %d bytes: %w", b[0], a.index, size, ErrProtocol)
	}
	for range masks {
		var m [2]byte
		if err := replica.ReadFull(r, m[:]); err != nil {
			return a, err
		}
		a.masks = append(a.masks, Mask(binary.BigEndian.Uint16(m[:])))
	}
	if a.kind == kindPatch {
		err = a.readPatch(r, min(LeafSize, size-a.index*LeafSize))
	}
	return a, err
}

// readPatch reads the rest of a patch of a leaf of n bytes.
func (a *ask) readPatch(r *bufio.Reader, n int64) error {
	var b [17]byte
	if err := replica.ReadFull(r, b[:]); err != nil {
		return err
	}
	if a.masks[0].all(n) || b[16]&^flagDoubted != 0 {
		return fmt.Errorf("patch without blocks, or with flags 0x%02x: %w", b[16], ErrProtocol)
	}
	a.patch = Patch{
		At:   Position{Term: binary.BigEndian.Uint64(b[:]), Barrier: binary.BigEndian.Uint64(b[8:])},
		Leaf: a.index, Without: a.masks[0], Content: make([]byte, n), Doubted: b[16] == flagDoubted,
	}
	for x := range a.masks[0].blocks(n) {
		if err := replica.ReadFull(r, a.patch.Content[x:x+Block]); err != nil {
			return err
		}
	}
	return nil
}

func appendSums(b []byte, sums ...Sum) []byte {
	b = binary.BigEndian.AppendUint16(append(b, byte(kindSums)), uint16(len(sums)))
	for _, s := range sums {
		b = append(b, s[:]...)
	}
	return b
}

const stateSize = 8 + 8 + 1 + replica.SumSize

func appendState(b []byte, s LeafState) []byte {
	b = binary.BigEndian.AppendUint64(append(b, byte(kindState)), s.Position.Term)
	b = binary.BigEndian.AppendUint64(b, s.Position.Barrier)
	b = append(b, byte(s.Record))
	return append(b, s.Sum[:]...)
}

// errWorking: the answer takes a while longer.
var errWorking = errors.New("verify: the replica is working")

// readSums reads an answer of exactly want sums, or errWorking.
func readSums(r *bufio.Reader, want int64) ([]Sum, error) {
	if err := readKind(r, kindSums); err != nil {
		return nil, err
	}
	var b [2]byte
	if err := replica.ReadFull(r, b[:]); err != nil {
		return nil, err
	}
	if n := binary.BigEndian.Uint16(b[:]); int64(n) != want {
		return nil, fmt.Errorf("%d sums instead of %d: %w", n, want, ErrProtocol)
	}
	return replica.ReadSums(r, make([]Sum, 0, want), int(want))
}

// readState reads the state of a leaf, or errWorking.
func readState(r *bufio.Reader) (s LeafState, err error) {
	if err := readKind(r, kindState); err != nil {
		return s, err
	}
	var b [stateSize]byte
	if err := replica.ReadFull(r, b[:]); err != nil {
		return s, err
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
	t, err := replica.ReadType(r, ErrReplica, ErrProtocol)
	switch {
	case err != nil:
		return err
	case kind(t) == kindWorking:
		return errWorking
	case kind(t) != want:
		return fmt.Errorf("frame type 0x%02x from the replica: %w", t, ErrProtocol)
	}
	return nil
}
