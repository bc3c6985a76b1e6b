package mirror

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

const (
	kindAck     Kind = 0x81
	kindFail    Kind = 0x82
	kindWorking Kind = 0x83
)

const (
	writeHead  = 8 + 4
	pairHead   = 8 + 8
	failHead   = 2 + 2
	typeLength = 1
)

// frame is a decoded frame. For a Write, length bytes of data follow it on the
// stream.
type frame struct {
	kind     Kind
	off, len int64
	pos      Position
	copy     [16]byte
	fail     Failure
}

func appendWrite(b []byte, off int64, p []byte) []byte {
	return append(appendWriteHead(b, off, len(p)), p...)
}

// appendWriteHead appends what comes before the n bytes of data of a Write.
func appendWriteHead(b []byte, off int64, n int) []byte {
	b = append(b, byte(Write))
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendPair(b []byte, k Kind, x, y uint64) []byte {
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint64(b, x)
	return binary.BigEndian.AppendUint64(b, y)
}

func appendBegin(b []byte, copy [16]byte) []byte {
	return append(append(b, byte(Begin)), copy[:]...)
}

func appendFail(b []byte, f *Failure) []byte {
	text := replica.Clip(f.Text)
	b = append(b, byte(kindFail))
	b = binary.BigEndian.AppendUint16(b, f.Code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// readFrame decodes the next frame's header and, of a Fail, its text. io.EOF
// means that the stream ended between two frames. Numbers are not checked
// here, except that offsets and lengths fit an int64.
func readFrame(r *bufio.Reader) (frame, error) {
	t, err := r.ReadByte()
	if err != nil {
		return frame{}, err
	}
	f := frame{kind: Kind(t)}
	var h [16]byte
	var n int
	switch f.kind {
	case kindWorking:
		return f, nil
	case Write:
		n = writeHead
	case Begin, Zero, Checkpoint, Barrier, kindAck:
		n = pairHead
	case kindFail:
		n = failHead
	default:
		return frame{}, fmt.Errorf("frame type 0x%02x: %w", t, ErrProtocol)
	}
	if _, err := io.ReadFull(r, h[:n]); err != nil {
		return frame{}, wire.CutShort(err)
	}
	x := binary.BigEndian.Uint64(h[:8])
	switch f.kind {
	case Write:
		f.off, f.len = int64(x), int64(binary.BigEndian.Uint32(h[8:12]))
	case Zero:
		f.off, f.len = int64(x), int64(binary.BigEndian.Uint64(h[8:]))
	case Begin:
		f.copy = h
	case Checkpoint, Barrier, kindAck:
		f.pos = Position{Term: x, Barrier: binary.BigEndian.Uint64(h[8:])}
	case kindFail:
		size := int(binary.BigEndian.Uint16(h[2:4]))
		if size > replica.MaxText {
			return frame{}, fmt.Errorf("failure text of %d bytes: %w", size, ErrProtocol)
		}
		text := make([]byte, size)
		if _, err := io.ReadFull(r, text); err != nil {
			return frame{}, wire.CutShort(err)
		}
		f.fail = Failure{Code: binary.BigEndian.Uint16(h[:2]), Text: string(text)}
	}
	if f.off < 0 || f.len < 0 {
		return frame{}, fmt.Errorf("offset or length beyond 63 bits: %w", ErrProtocol)
	}
	return f, nil
}
