package fetch

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/wire"
)

// kind is a frame's type byte.
type kind uint8

const (
	kindWant  kind = 0x01
	kindPing  kind = 0x02
	kindData  kind = 0x81
	kindZero  kind = 0x82
	kindSorry kind = 0x83
	kindPong  kind = 0x84
)

// The codes of a Sorry. An unknown one is taken for sorryRead.
const (
	sorryNotHere uint16 = 1
	sorryRead    uint16 = 2
	sorryOver    uint16 = 3
)

const (
	pieceHead = 1 + 4 + 4
	maxHead   = 1 + 4 + 8 + 4
)

// question is what an asker sends. A Ping has only an ID.
type question struct {
	kind kind
	id   uint32
	off  int64
	len  int
}

func (q question) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, byte(q.kind)), q.id)
	if q.kind == kindWant {
		b = binary.BigEndian.AppendUint64(b, uint64(q.off))
		b = binary.BigEndian.AppendUint32(b, uint32(q.len))
	}
	return b
}

// readQuestion reads the next question about a disk of that size. io.EOF says that the stream ended before one.
func readQuestion(r *bufio.Reader, size int64) (question, error) {
	var h [maxHead]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return question{}, err
	}
	q, n := question{kind: kind(h[0])}, 4
	switch q.kind {
	case kindWant:
		n = maxHead - 1
	case kindPing:
	default:
		return q, fmt.Errorf("frame type 0x%02x from the asker: %w", h[0], ErrProtocol)
	}
	if _, err := io.ReadFull(r, h[1:1+n]); err != nil {
		return q, wire.CutShort(err)
	}
	q.id = binary.BigEndian.Uint32(h[1:])
	if q.kind == kindPing {
		return q, nil
	}
	off, length := binary.BigEndian.Uint64(h[5:]), int64(binary.BigEndian.Uint32(h[13:]))
	if !inRange(int64(off), length, size) {
		return q, fmt.Errorf("%d bytes at %d were asked for on a disk of %d: %w", length, off, size, ErrProtocol)
	}
	q.off, q.len = int64(off), int(length)
	return q, nil
}

// inRange says whether n bytes at off can be wanted of a disk of that size.
func inRange(off, n, size int64) bool {
	return off >= 0 && off%Block == 0 && n > 0 && n%Block == 0 && n <= MaxWant && n <= size && off <= size-n
}

// answer is the head of what a holder sends; len bytes of content follow that of a Data.
type answer struct {
	kind kind
	id   uint32
	len  int    // of a Data or a Zero
	code uint16 // of a Sorry
}

// putPiece puts the head of a Data or a Zero into b, pieceHead bytes.
func putPiece(b []byte, k kind, id uint32, n int) {
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], id)
	binary.BigEndian.PutUint32(b[5:], uint32(n))
}

func appendSorry(b []byte, id uint32, code uint16) []byte {
	b = binary.BigEndian.AppendUint32(append(b, byte(kindSorry)), id)
	return binary.BigEndian.AppendUint16(b, code)
}

func appendPong(b []byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(kindPong)), id)
}

// readAnswer reads the head of the next answer. io.EOF says that the stream ended before one.
func readAnswer(r *bufio.Reader) (answer, error) {
	var h [pieceHead]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return answer{}, err
	}
	a, n := answer{kind: kind(h[0])}, 4
	switch a.kind {
	case kindData, kindZero:
		n = 8
	case kindSorry:
		n = 6
	case kindPong:
	default:
		return a, fmt.Errorf("frame type 0x%02x from the holder: %w", h[0], ErrProtocol)
	}
	if _, err := io.ReadFull(r, h[1:1+n]); err != nil {
		return a, wire.CutShort(err)
	}
	a.id = binary.BigEndian.Uint32(h[1:])
	switch a.kind {
	case kindSorry:
		a.code = binary.BigEndian.Uint16(h[5:])
	case kindData, kindZero:
		length := binary.BigEndian.Uint32(h[5:])
		if length == 0 || length%Block != 0 || length > MaxWant {
			return a, fmt.Errorf("answer of %d bytes: %w", length, ErrProtocol)
		}
		a.len = int(length)
	}
	return a, nil
}
