package qemu

import (
	"encoding/binary"
	"sync"
	"time"
)

// heldStream is QEMU's stream of a teleport whose end must not be QEMU's too. A closed one has QEMU wait in its next write; reopened, it can be read on.
type heldStream struct {
	weighed
	mu  sync.Mutex
	ask []byte // the beginning of what the taker's QEMU says, of which the end hasn't come
	// ended says that what was read last is how a stream ends.
	ended bool
}

// longAgo ends what waits for a stream.
var longAgo = time.Unix(1, 0)

// Close ends reading and writing here, not in QEMU.
func (s *heldStream) Close() error {
	return s.weighed.Conn.SetDeadline(longAgo)
}

// Write passes on what the taker's QEMU says, in whole messages: whatever becomes of the line, another can follow.
func (s *heldStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask = append(s.ask, p...)
	n := wholeMessages(s.ask)
	if n == 0 {
		return len(p), nil
	}
	if _, err := s.weighed.Conn.Write(s.ask[:n]); err != nil {
		return 0, err
	}
	s.ask = append(s.ask[:0], s.ask[n:]...)
	return len(p), nil
}

// say sends a message in the place of the taker's QEMU, which nobody listens to any more.
func (s *heldStream) say(m []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask = nil
	_, _ = s.weighed.Conn.Write(m) // a QEMU that doesn't read it doesn't come to its end, which is waited for
}

// CloseWrite does nothing: the end of what the taker says isn't QEMU's to hear.
func (s *heldStream) CloseWrite() error { return nil }

// drain reads on, for nobody, until QEMU has ended the stream, or sever.
func (s *heldStream) drain() {
	if err := s.weighed.Conn.SetDeadline(time.Time{}); err != nil {
		return
	}
	b := make([]byte, 256<<10)
	var last []byte
	for {
		n, err := s.weighed.Conn.Read(b)
		last = append(last, b[max(0, n-len(endMark)):n]...)
		last = last[max(0, len(last)-len(endMark)):]
		s.mu.Lock()
		s.ended = isEnd(last)
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// drained says that all that QEMU has to send was read.
func (s *heldStream) drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// sever ends it for QEMU too.
func (s *heldStream) sever() { _ = s.weighed.Conn.Close() }

// What a QEMU that takes memory in says is messages: type, length of the rest, both two bytes, and the rest.
const (
	messageHeader = 4
	messageEnd    = 1 // it ends, with an error code of four bytes
)

// endMark is how a stream ends: a section's footer with its number, of four bytes, and the end.
var endMark = [...]byte{0x7e, 0, 0, 0, 0, 0}

func isEnd(last []byte) bool {
	return len(last) == len(endMark) && last[0] == endMark[0] && last[len(last)-1] == endMark[len(endMark)-1]
}

// arrived says that all of the memory has come in.
var arrived = []byte{0, messageEnd, 0, 4, 0, 0, 0, 0}

// wholeMessages is how many bytes at the beginning of p are whole messages.
func wholeMessages(p []byte) (n int) {
	for len(p)-n >= messageHeader {
		m := messageHeader + int(binary.BigEndian.Uint16(p[n+2:]))
		if len(p)-n < m {
			break
		}
		n += m
	}
	return n
}
