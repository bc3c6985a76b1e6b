package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
)

// handshake greets the client and answers its options. It returns nil with c.export set when the client
// chose an export, nil without one when it left in good order.
func (c *conn) handshake() error {
	if err := c.deadline(c.server.handshakeTimeout()); err != nil {
		return fmt.Errorf("nbd: handshake: %w", err)
	}
	hello := binary.BigEndian.AppendUint64(nil, magicHello)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.nc.Write(hello); err != nil {
		return fmt.Errorf("nbd: handshake: %w", err)
	}
	var flags [4]byte
	if _, err := io.ReadFull(c.in, flags[:]); err != nil {
		return fmt.Errorf("nbd: handshake: %w", err)
	}
	chosen := binary.BigEndian.Uint32(flags[:])
	if chosen&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: client flags %#x", errProtocol, chosen)
	}
	c.fixed = chosen&uint32(flagFixedNewstyle) != 0
	c.noZeroes = chosen&uint32(flagNoZeroes) != 0
	for range maxOptions {
		done, err := c.option()
		if err != nil {
			return err
		}
		if done {
			return c.deadline(0)
		}
	}
	return fmt.Errorf("%w: too many options", errProtocol)
}

// option takes one option. done says that the handshake is over.
func (c *conn) option() (done bool, err error) {
	var head [16]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return false, fmt.Errorf("nbd: option: %w", err)
	}
	if binary.BigEndian.Uint64(head[:]) != magicOption {
		return false, fmt.Errorf("%w: option magic", errProtocol)
	}
	opt := binary.BigEndian.Uint32(head[8:])
	size := binary.BigEndian.Uint32(head[12:])
	if !c.fixed && opt != optExportName {
		return false, fmt.Errorf("%w: option %d without fixed newstyle", errProtocol, opt)
	}
	if size > maxOption {
		if opt == optExportName {
			return false, fmt.Errorf("%w: export name of %d bytes", errProtocol, size)
		}
		if _, err := io.CopyN(io.Discard, c.in, int64(size)); err != nil {
			return false, fmt.Errorf("nbd: option: %w", err)
		}
		return false, c.reply(opt, repErrTooBig, nil)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return false, fmt.Errorf("nbd: option: %w", err)
	}
	switch opt {
	case optExportName:
		return true, c.exportName(string(data))
	case optAbort:
		// The client may be gone already, as the protocol lets it.
		_ = c.reply(opt, repAck, nil)
		return true, nil
	case optList:
		return false, c.list(data)
	case optInfo, optGo:
		return c.goOrInfo(opt, data)
	case optStructuredReply:
		if len(data) != 0 {
			return false, c.reply(opt, repErrInvalid, nil)
		}
		c.structured = true
		return false, c.reply(opt, repAck, nil)
	case optListMetaContext, optSetMetaContext:
		return false, c.metaContext(opt, data)
	default:
		return false, c.reply(opt, repErrUnsup, nil)
	}
}

// reply answers option opt.
func (c *conn) reply(opt, kind uint32, data []byte) error {
	if _, err := c.nc.Write(appendOptReply(nil, opt, kind, data)); err != nil {
		return fmt.Errorf("nbd: option reply: %w", err)
	}
	return nil
}

func appendOptReply(p []byte, opt, kind uint32, data []byte) []byte {
	p = binary.BigEndian.AppendUint64(p, magicOptReply)
	p = binary.BigEndian.AppendUint32(p, opt)
	p = binary.BigEndian.AppendUint32(p, kind)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	return append(p, data...)
}

// cursor reads an option's data. After a read beyond the end, bad is set and all reads give zero.
type cursor struct {
	rest []byte
	bad  bool
}

func (p *cursor) bytes(n int) []byte {
	if p.bad || n > len(p.rest) {
		p.bad = true
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *cursor) uint16() uint16 {
	if b := p.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *cursor) uint32() uint32 {
	if b := p.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// text reads a length and that many bytes.
func (p *cursor) text() string {
	n := p.uint32()
	if n > maxString {
		p.bad = true
		return ""
	}
	return string(p.bytes(int(n)))
}

// end reports whether all was read and nothing is left.
func (p *cursor) end() bool { return !p.bad && len(p.rest) == 0 }
