package push

import (
	"encoding/binary"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// tag is a frame's first byte.
type tag byte

const (
	tagBegin  tag = 0x01
	tagData   tag = 0x02
	tagZero   tag = 0x03
	tagAsk    tag = 0x04
	tagCommit tag = 0x05
	tagHeld   tag = 0x80
	tagAck    tag = 0x81
	tagNeed   tag = 0x82
	tagDone   tag = 0x83
	tagFail   tag = 0x84
)

// flagIndex in a Held frame says that the receiver looks for blocks elsewhere too.
const flagIndex = 1

// begin says what is pushed onto what.
type begin struct {
	copy [16]byte
	from Position // of the receiver's disk; zero if it isn't whole
	key  [32]byte // of the sums
}

func (f *begin) appendTo(b []byte) []byte {
	b = append(append(b, byte(tagBegin)), f.copy[:]...)
	b = binary.BigEndian.AppendUint64(b, f.from.Term)
	b = binary.BigEndian.AppendUint64(b, f.from.Barrier)
	return append(b, f.key[:]...)
}

// frame is a decoded frame after Begin and Held. Of a Data or an Ask the content or the sums are in body, which is valid until the next one.
type frame struct {
	tag    tag
	region int64      // Data, Ask, Need
	set    set        // Data, Ask, Need
	codec  flow.Codec // Data
	kind   kind       // Ask
	first  int64      // Zero, in blocks
	count  int64      // Zero, in blocks
	body   []byte
	got    uint64 // Ack
	safe   uint64 // Ack
	fail   Failure
}

func appendData(b []byte, c flow.Codec, region int64, s *set, blocks int, body []byte) []byte {
	b = append(b, byte(tagData), byte(c))
	b = binary.AppendUvarint(b, uint64(region))
	b = s.appendTo(b, blocks)
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func appendZero(b []byte, r run) []byte {
	b = append(b, byte(tagZero))
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(r.a)), uint64(r.b-r.a))
}

// appendAsk appends the question's head; its sums follow.
func appendAsk(b []byte, k kind, region int64, s *set, blocks int) []byte {
	b = append(b, byte(tagAsk), byte(k))
	b = binary.AppendUvarint(b, uint64(region))
	return s.appendTo(b, blocks)
}

func appendNeed(b []byte, region int64, s *set, blocks int) []byte {
	b = binary.AppendUvarint(append(b, byte(tagNeed)), uint64(region))
	return s.appendTo(b, blocks)
}

func appendAck(b []byte, got, safe uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, byte(tagAck)), got), got-safe)
}

func appendFail(b []byte, f *Failure) []byte {
	text := replica.Clip(f.Text)
	b = binary.BigEndian.AppendUint16(append(b, byte(tagFail)), f.Code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// reader decodes the frames of one direction about a disk of size bytes. io.EOF from read means that the stream ended between two frames.
type reader struct {
	r    byteReader
	size int64
	body []byte
}

func (x *reader) number() (uint64, error) {
	n, err := binary.ReadUvarint(x.r)
	if err != nil {
		return 0, wire.CutShort(err)
	}
	return n, nil
}

// begin reads the sender's first frame.
func (x *reader) begin() (f begin, err error) {
	var b [1 + 16 + 8 + 8 + 32]byte
	if _, err := io.ReadFull(x.r, b[:]); err != nil {
		return f, wire.CutShort(err)
	}
	if tag(b[0]) != tagBegin {
		return f, fmt.Errorf("frame type 0x%02x instead of the beginning: %w", b[0], ErrProtocol)
	}
	f.copy, f.key = [16]byte(b[1:17]), [32]byte(b[33:])
	f.from = Position{Term: binary.BigEndian.Uint64(b[17:]), Barrier: binary.BigEndian.Uint64(b[25:])}
	return f, nil
}

// held reads the receiver's first frame.
func (x *reader) held() (h held, index bool, err error) {
	var b [2]byte
	if _, err := io.ReadFull(x.r, b[:]); err != nil {
		return nil, false, wire.CutShort(err)
	}
	if tag(b[0]) != tagHeld {
		return nil, false, fmt.Errorf("frame type 0x%02x instead of what is held: %w", b[0], ErrProtocol)
	}
	h, err = readHeld(x.r, x.size/Block)
	return h, b[1]&flagIndex != 0, wire.CutShort(err)
}

// read reads the next frame into f.
func (x *reader) read(f *frame) error {
	t, err := x.r.ReadByte()
	if err != nil {
		return err
	}
	f.tag = tag(t)
	switch f.tag {
	case tagData:
		err = x.data(f)
	case tagZero:
		err = x.zero(f)
	case tagAsk:
		err = x.ask(f)
	case tagNeed:
		err = x.place(f)
	case tagAck:
		if f.got, err = x.number(); err == nil {
			f.safe, err = x.number()
		}
		if err == nil && f.safe > f.got {
			err = fmt.Errorf("%d of %d bytes not safe: %w", f.safe, f.got, ErrProtocol)
		}
		f.safe = f.got - f.safe
	case tagFail:
		err = x.failure(f)
	case tagCommit, tagDone:
	default:
		err = fmt.Errorf("frame type 0x%02x: %w", t, ErrProtocol)
	}
	return wire.CutShort(err)
}

// place reads a region and a set of its blocks.
func (x *reader) place(f *frame) error {
	r, err := x.number()
	if err != nil {
		return err
	}
	if r >= uint64(regionsOf(x.size)) {
		return fmt.Errorf("region %d of a disk of %d bytes: %w", r, x.size, ErrProtocol)
	}
	f.region = int64(r)
	f.set, err = readSet(x.r, blocksOf(x.size, f.region))
	return err
}

func (x *reader) load(n int) ([]byte, error) {
	if cap(x.body) < n {
		x.body = make([]byte, n)
	}
	p := x.body[:n]
	_, err := io.ReadFull(x.r, p)
	return p, err
}

func (x *reader) data(f *frame) error {
	c, err := x.r.ReadByte()
	if err != nil {
		return err
	}
	f.codec = flow.Codec(c)
	if err := x.place(f); err != nil {
		return err
	}
	n, err := x.number()
	if err != nil {
		return err
	}
	switch blocks := f.set.count(); {
	case blocks == 0 || blocks > batchBlocks:
		return fmt.Errorf("content of %d blocks: %w", blocks, ErrProtocol)
	case f.codec != flow.Raw && f.codec != flow.Zstd:
		return fmt.Errorf("content of codec %d: %w", c, ErrProtocol)
	case n > uint64(blocks*Block) || f.codec == flow.Raw && n != uint64(blocks*Block):
		return fmt.Errorf("%d bytes for %d blocks: %w", n, blocks, ErrProtocol)
	}
	f.body, err = x.load(int(n))
	return err
}

func (x *reader) zero(f *frame) error {
	first, err := x.number()
	if err != nil {
		return err
	}
	count, err := x.number()
	if err != nil {
		return err
	}
	if blocks := uint64(x.size / Block); first >= blocks || count == 0 || count > blocks-first {
		return fmt.Errorf("%d zero blocks at %d of %d: %w", count, first, blocks, ErrProtocol)
	}
	f.first, f.count = int64(first), int64(count)
	return nil
}

func (x *reader) ask(f *frame) error {
	k, err := x.r.ReadByte()
	if err != nil {
		return err
	}
	f.kind = kind(k)
	if f.kind.group() == 0 {
		return fmt.Errorf("question of kind %d: %w", k, ErrProtocol)
	}
	if err := x.place(f); err != nil {
		return err
	}
	n := f.set.count()
	if n == 0 {
		return fmt.Errorf("question about nothing: %w", ErrProtocol)
	}
	f.body, err = x.load(f.kind.sums(n) * f.kind.size())
	return err
}

func (x *reader) failure(f *frame) error {
	var h [4]byte
	if _, err := io.ReadFull(x.r, h[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint16(h[2:]))
	if n > replica.MaxText {
		return fmt.Errorf("failure text of %d bytes: %w", n, ErrProtocol)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(x.r, text); err != nil {
		return err
	}
	f.fail = Failure{binary.BigEndian.Uint16(h[:]), string(text)}
	return nil
}
