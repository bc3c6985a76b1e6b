package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// exportName is the old way into the transmission phase: no error can be told, only a hang-up.
func (c *conn) exportName(name string) error {
	if len(name) > maxString {
		return fmt.Errorf("%w: export name of %d bytes", errProtocol, len(name))
	}
	b, err := c.server.lookup(name)
	if err != nil {
		return fmt.Errorf("nbd: open export: %w", err)
	}
	if err := c.enter(name, b); err != nil {
		return err
	}
	p := binary.BigEndian.AppendUint64(nil, uint64(c.export.size))
	p = binary.BigEndian.AppendUint16(p, c.transmissionFlags(b))
	if !c.noZeroes {
		p = append(p, make([]byte, 124)...)
	}
	if _, err := c.nc.Write(p); err != nil {
		return fmt.Errorf("nbd: export name reply: %w", err)
	}
	return nil
}

// enter makes b the connection's disk.
func (c *conn) enter(name string, b Backend) error {
	e, err := c.server.registry.join(c, b)
	if err != nil {
		return fmt.Errorf("nbd: open export: %w", err)
	}
	c.export = e
	c.status, _ = b.(StatusBackend)
	c.cache, _ = b.(CacheBackend)
	c.prompt, _ = b.(PromptBackend)
	c.wantStatus = c.status != nil && c.metaChosen && c.metaExport == name
	return nil
}

// transmissionFlags says what can be done with b. An engine's export is never read-only: a device that doesn't
// own the disk yet serves it to a hypervisor that waits, and that would not start on a read-only one.
func (c *conn) transmissionFlags(b Backend) uint16 {
	flags := flagHasFlags | flagFlush | flagFUA | flagMultiConn
	if _, ok := b.(ReadOnlyBackend); ok {
		flags |= flagReadOnly
	} else {
		flags |= flagTrim | flagWriteZeroes
	}
	if c.structured {
		flags |= flagDF
	}
	if _, ok := b.(CacheBackend); ok {
		flags |= flagCache
	}
	return flags
}

// list answers NBD_OPT_LIST.
func (c *conn) list(data []byte) error {
	if len(data) != 0 {
		return c.reply(optList, repErrInvalid, nil)
	}
	var p []byte
	for _, name := range c.server.names() {
		if len(name) > maxString {
			continue
		}
		entry := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		p = appendOptReply(p, optList, repServer, append(entry, name...))
	}
	p = appendOptReply(p, optList, repAck, nil)
	if _, err := c.nc.Write(p); err != nil {
		return fmt.Errorf("nbd: list reply: %w", err)
	}
	return nil
}

// goOrInfo answers NBD_OPT_GO and NBD_OPT_INFO.
func (c *conn) goOrInfo(opt uint32, data []byte) (done bool, err error) {
	cur := cursor{rest: data}
	name := cur.text()
	wantName := false
	for range cur.uint16() {
		wantName = cur.uint16() == infoName || wantName
		if cur.bad {
			break
		}
	}
	if !cur.end() {
		return false, c.reply(opt, repErrInvalid, nil)
	}
	b, err := c.server.lookup(name)
	switch {
	case errors.Is(err, ErrHangUp):
		return false, err
	case err != nil:
		return false, c.reply(opt, repErrUnknown, nil)
	}
	size := max(b.Size(), 0)
	if opt == optGo {
		if err := c.enter(name, b); err != nil {
			return false, c.reply(opt, repErrUnknown, nil)
		}
		size = c.export.size
	}
	info := binary.BigEndian.AppendUint16(nil, infoExport)
	info = binary.BigEndian.AppendUint64(info, uint64(size))
	info = binary.BigEndian.AppendUint16(info, c.transmissionFlags(b))
	p := appendOptReply(nil, opt, repInfo, info)
	if wantName {
		info = binary.BigEndian.AppendUint16(nil, infoName)
		p = appendOptReply(p, opt, repInfo, append(info, name...))
	}
	info = binary.BigEndian.AppendUint16(nil, infoBlockSize)
	info = binary.BigEndian.AppendUint32(info, minBlock(size))
	info = binary.BigEndian.AppendUint32(info, preferredBlock)
	info = binary.BigEndian.AppendUint32(info, maxData)
	p = appendOptReply(p, opt, repInfo, info)
	p = appendOptReply(p, opt, repAck, nil)
	if _, err := c.nc.Write(p); err != nil {
		return false, fmt.Errorf("nbd: go reply: %w", err)
	}
	return opt == optGo, nil
}

// preferredBlock is the unit in which changes are tracked: whole blocks spare a read of the rest.
const preferredBlock = 4096

// minBlock is the least block size to advertise: 4096, or what divides a disk of odd size, for clients
// refuse a size that isn't a multiple. Requests of any alignment are taken all the same.
func minBlock(size int64) uint32 {
	block := int64(preferredBlock)
	for size%block != 0 {
		block /= 2
	}
	return uint32(block)
}

// metaContext answers NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
func (c *conn) metaContext(opt uint32, data []byte) error {
	if opt == optSetMetaContext {
		// A set that fails leaves nothing chosen, not the earlier choice.
		c.metaChosen, c.metaExport = false, ""
	}
	cur := cursor{rest: data}
	name := cur.text()
	count := cur.uint32()
	found := opt == optListMetaContext && count == 0
	for range count {
		if cur.bad {
			break
		}
		query := cur.text()
		found = found || query == contextName || opt == optListMetaContext && query == contextName[:strings.IndexByte(contextName, ':')+1]
	}
	if !cur.end() || !c.structured {
		return c.reply(opt, repErrInvalid, nil)
	}
	b, err := c.server.lookup(name)
	switch {
	case errors.Is(err, ErrHangUp):
		return err
	case err != nil:
		return c.reply(opt, repErrUnknown, nil)
	}
	var p []byte
	if _, ok := b.(StatusBackend); ok && found {
		if opt == optSetMetaContext {
			c.metaChosen, c.metaExport = true, name
		}
		entry := binary.BigEndian.AppendUint32(nil, contextID)
		p = appendOptReply(p, opt, repMetaContext, append(entry, contextName...))
	}
	p = appendOptReply(p, opt, repAck, nil)
	if _, err := c.nc.Write(p); err != nil {
		return fmt.Errorf("nbd: meta context reply: %w", err)
	}
	return nil
}
