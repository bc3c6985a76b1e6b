package qemu

import (
	"bytes"
	"net"

	"tagalong.org/tagalong/app/hypervisor"
)

// guestPage is the page of QEMU's migration stream for the processors that are emulated here, in bytes.
const guestPage = 4096

// An empty page that isn't the first of its block is nine bytes: its address, whose lowest byte has the flags "zero" and "continue", and a zero.
const (
	zeroRecord = 9
	zeroFlags  = 0x22
)

// weighed is the stream of a teleport that says what its bytes stand for.
type weighed struct{ net.Conn }

var _ hypervisor.Weigher = weighed{}

// CloseWrite ends QEMU's reading, not its writing.
func (w weighed) CloseWrite() error {
	if c, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// Weigh implements hypervisor.Weigher.
func (weighed) Weigh(p []byte) int64 { return weigh(p) }

// weigh is how much of the guest's memory a piece of QEMU's stream stands for: each byte for itself, but the records of empty pages. It doesn't follow the
// stream, so that it needs nothing of its version; content that looks like a record counts as a page too much.
func weigh(p []byte) int64 {
	n := int64(len(p))
	for i := 0; i < len(p); {
		at := bytes.IndexByte(p[i:], zeroFlags)
		if at < 0 {
			break
		}
		i += at
		if i+1 >= len(p) || p[i+1] != 0 || i > 0 && p[i-1]&0x0f != 0 {
			i++ // a page's address has twelve bits of flags
			continue
		}
		n += guestPage - zeroRecord
		i += zeroRecord
	}
	return n
}
