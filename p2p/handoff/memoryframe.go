package handoff

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/flow"
	"tagalong.org/tagalong/p2p/wire"
)

// memTag is the first byte of a frame of the memory stream.
type memTag byte

const (
	memData memTag = 0x01
	memAck  memTag = 0x02
	memEnd  memTag = 0x03
)

// maxMemData is the most content of one frame, in bytes.
const maxMemData = 256 << 10

// memFrame is a decoded frame. The content of a Data frame is valid until the next one is read.
type memFrame struct {
	tag     memTag
	content []byte
	got     uint64 // Ack: bytes of the stream
	given   uint64 // Ack: bytes of content
}

func appendMemData(b []byte, c flow.Codec, n int, body []byte) []byte {
	b = append(b, byte(memData), byte(c))
	b = binary.AppendUvarint(b, uint64(n))
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func appendMemAck(b []byte, got, given uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, byte(memAck)), got), given)
}

// memReader decodes the frames of one direction. io.EOF means that the stream ended between two frames.
type memReader struct {
	r      *bufio.Reader
	expand *flow.Expander
	body   []byte
}

func newMemReader(r io.Reader) *memReader {
	return &memReader{r: bufio.NewReaderSize(r, 64<<10), expand: flow.NewExpander(maxMemData)}
}

func (x *memReader) number() (uint64, error) {
	n, err := binary.ReadUvarint(x.r)
	if err != nil {
		return 0, wire.CutShort(err)
	}
	return n, nil
}

func (x *memReader) next() (f memFrame, err error) {
	tag, err := x.r.ReadByte()
	if err != nil {
		return f, err
	}
	switch f.tag = memTag(tag); f.tag {
	case memData:
		f.content, err = x.data()
	case memAck:
		if f.got, err = x.number(); err == nil {
			f.given, err = x.number()
		}
	case memEnd:
	default:
		err = fmt.Errorf("frame type 0x%02x: %w", tag, ErrMalformed)
	}
	return f, err
}

func (x *memReader) data() ([]byte, error) {
	codec, err := x.r.ReadByte()
	if err != nil {
		return nil, wire.CutShort(err)
	}
	n, err := x.number()
	if err != nil {
		return nil, err
	}
	length, err := x.number()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > maxMemData || length > n {
		return nil, fmt.Errorf("%d bytes for %d of content: %w", length, n, ErrMalformed)
	}
	if x.body == nil {
		x.body = make([]byte, maxMemData)
	}
	body := x.body[:length]
	if _, err := io.ReadFull(x.r, body); err != nil {
		return nil, wire.CutShort(err)
	}
	content, err := x.expand.Unpack(flow.Codec(codec), body, int(n))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return content, nil
}
