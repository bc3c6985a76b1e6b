package handoff

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/p2p/flow"
)

const (
	// memShare is how much of a processor's core may compress memory: a switch is what the person waits for, and it ends.
	memShare = 1
	// memPendingTime is how much may wait to be sent, as time at the link's speed: enough for it not to run dry while the next is compressed.
	memPendingTime = 20 * time.Millisecond
	memPendingMin  = 16 << 10
	memPendingMax  = 1 << 20
	// memAhead is how much may have come and not be read, in bytes of content; what comes beyond that isn't acknowledged.
	memAhead = 1 << 20
	// latelyWire is how many bytes on the wire tell how much compressing spares, or as many as the link carries in a second.
	latelyWire = 512 << 10
)

var errMemoryEnded = errors.New("handoff: the memory stream was ended here")

// Memory is one end of a memory stream. It carries the hypervisor's bytes in both directions; Read and Write are for one goroutine each, the rest for any.
//
// The giver's direction is compressed as much as helps, and held to a window, so that what has left the hypervisor and isn't there yet is little
// whatever the link: the taker acknowledges what has come, and takes more only as its hypervisor does. The other direction is a few bytes now and then, sent as they are.
type Memory struct {
	s     Stream
	raw   bool // MemoryRaw: all goes through as it is
	giver bool
	begun time.Time
	pack  *flow.Compressor // of Write's goroutine
	frame []byte           // of Write's goroutine
	owed  int              // of Read's goroutine: bytes read that weren't acknowledged
	ended sync.WaitGroup

	direct sync.Mutex // the taker's writes, each a whole frame
	got    uint64     // guarded by direct: bytes of the stream that came
	told   uint64     // guarded by direct: how many of them are acknowledged

	passed, given atomic.Int64 // bytes of content of the giver's direction: taken from the hypervisor, and given to the other one

	// guarded by mu
	mu      sync.Mutex
	changed *sync.Cond
	toPack  *sync.Cond // of the lanes
	err     error      // final
	win     flow.Window
	lately  struct{ content, wire float64 } // bytes that were packed, and what they came to; what is older counts less
	lanes   lanes
	pending []byte
	sending bool
	closing bool     // Write won't come any more
	flushed bool     // and all of it is sent
	queue   [][]byte // content that came
	queued  int      // bytes of content in the queue
	eof     bool     // the peer's direction has ended
}

// newMemory makes an end of a stream; a giver's (lanes isn't 0) packs in so many lanes at most.
func newMemory(s Stream, version, lanes int) *Memory {
	m := &Memory{s: s, raw: version == MemoryRaw, giver: lanes > 0, begun: time.Now()}
	m.changed, m.toPack = sync.NewCond(&m.mu), sync.NewCond(&m.mu)
	if m.raw {
		return m
	}
	m.ended.Go(m.receive)
	if m.giver {
		m.pack = flow.NewCompressor(memShare, maxMemData, lanes)
		m.ended.Go(m.send)
	}
	return m
}

// Speed is how much content a second the way carries at present, in bytes: what the link does, times what compressing has spared lately. 0 is unknown.
func (m *Memory) Speed() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	link := m.win.Speed()
	if m.raw || m.lately.wire == 0 {
		return link
	}
	return link * max(1, m.lately.content/m.lately.wire)
}

// packedLocked notes what became of a piece of content: the first pass over a guest's memory, much of which is empty, says nothing of what it writes anew.
func (m *Memory) packedLocked(content, wire int) {
	m.lately.content += float64(content)
	m.lately.wire += float64(wire)
	if m.lately.wire > max(latelyWire, m.win.Speed()) {
		m.lately.content /= 2
		m.lately.wire /= 2
	}
}

// Link is what is known of the link: bytes a second, and the way there and back. 0 is unknown.
func (m *Memory) Link() (speed float64, trip time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.win.Speed(), m.win.Trip()
}

// Wire is how many bytes have been sent on the stream.
func (m *Memory) Wire() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.raw {
		return m.passed.Load()
	}
	return m.win.Sent()
}

// Arrived is how many bytes of content the peer says its hypervisor has been given; of a MemoryRaw stream, all.
func (m *Memory) Arrived() int64 {
	if m.raw {
		return m.passed.Load()
	}
	return m.given.Load()
}

// Write sends the hypervisor's bytes. It returns when they are about to be sent.
func (m *Memory) Write(p []byte) (int, error) {
	switch {
	case m.raw:
		n, err := m.s.Write(p)
		m.passed.Add(int64(n))
		return n, err
	case !m.giver:
		return m.writeBack(p)
	}
	for n := 0; n < len(p); {
		piece := p[n:min(len(p), n+m.piece())]
		link, starved, inLanes := m.state()
		plan := m.pack.Plan(link, starved)
		var err error
		if plan.Lanes > 1 && (inLanes || !plan.Raw() && len(piece) >= smallest) {
			err = m.spread(plan, piece)
		} else {
			err = m.packHere(plan, piece)
		}
		if err != nil {
			return n, err
		}
		n += len(piece)
	}
	return len(p), nil
}

// packHere packs a piece in Write's goroutine, and hands it over to be sent.
func (m *Memory) packHere(plan flow.Plan, piece []byte) error {
	codec, body, err := m.pack.PackAs(plan, piece)
	if err != nil {
		return err
	}
	m.frame = appendMemData(m.frame[:0], codec, len(piece), body)
	if err := m.hand(len(piece), m.frame); err != nil {
		return err
	}
	m.passed.Add(int64(len(piece)))
	return nil
}

// state is the link's speed, whether it has nothing to send, and whether there is something in the lanes that will be. It is for Write's goroutine, which learns
// here what the lanes have found out.
func (m *Memory) state() (link float64, starved, inLanes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.lanes.free {
		m.pack.Learn(p.effort)
		p.effort = flow.Effort{}
	}
	starved = len(m.pending) == 0 && !m.sending && m.win.Room() > 2*(m.win.Sent()-m.win.Got())
	for _, p := range m.lanes.order {
		starved = starved && !p.done // it waits for another, and not for content
	}
	return m.win.Speed(), starved, len(m.lanes.order) > 0
}

// piece is how much is compressed at once: on a slow link little, for it to be on its way soon.
func (m *Memory) piece() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return min(4*m.roomLocked(), maxMemData)
}

// roomLocked is how much may wait to be sent.
func (m *Memory) roomLocked() int {
	return int(min(max(m.win.Speed()*memPendingTime.Seconds(), memPendingMin), memPendingMax))
}

// hand hands a frame over to be sent that stands for so much content, after what is in the lanes. It waits while much is.
func (m *Memory) hand(content int, frame []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if content > 0 {
		m.packedLocked(content, len(frame))
	}
	for room := m.roomLocked(); m.err == nil && (len(m.pending) >= room || len(m.lanes.order) > 0); {
		m.changed.Wait()
	}
	if m.err != nil {
		return m.err
	}
	m.pending = append(m.pending, frame...)
	m.changed.Broadcast()
	return nil
}

// writeBack sends bytes of the return path, uncompressed and at once.
func (m *Memory) writeBack(p []byte) (int, error) {
	for n := 0; n < len(p); {
		piece := p[n:min(len(p), n+maxMemData)]
		if err := m.now(appendMemData(nil, flow.Raw, len(piece), piece)); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return len(p), nil
}

// now writes a frame of the taker's.
func (m *Memory) now(frame []byte) error {
	m.direct.Lock()
	defer m.direct.Unlock()
	if _, err := m.s.Write(frame); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// send sends what was handed over, as the window allows, until all is sent that ever will be, or the stream fails.
func (m *Memory) send() {
	var buf []byte
	for {
		p, ok := m.take(buf[:0])
		if !ok {
			return
		}
		_, err := m.s.Write(p)
		m.mu.Lock()
		m.sending = false
		if err != nil {
			m.failLocked(fmt.Errorf("write: %w", err))
		}
		m.changed.Broadcast()
		m.mu.Unlock()
		buf = p
	}
}

// take waits for what may be sent now, and appends it to p.
func (m *Memory) take(p []byte) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.err == nil {
		m.gatherLocked()
		n := min(len(m.pending), int(m.win.Piece()))
		switch {
		case n > 0 && (m.win.Room() >= int64(n) || m.win.Sent() == m.win.Got()):
			p = append(p, m.pending[:n]...)
			m.pending = m.pending[:copy(m.pending, m.pending[n:])]
			m.sending = true
			m.win.Send(time.Since(m.begun), int64(n))
			m.changed.Broadcast()
			return p, true
		case n == 0 && m.closing:
			m.flushed = true
			m.changed.Broadcast()
			return nil, false
		}
		m.changed.Wait()
	}
	return nil, false
}

// receive reads the peer's frames until its direction ends or the stream fails.
func (m *Memory) receive() {
	x := newMemReader(arrivals{m})
	var end bool
	for {
		f, err := x.next()
		if err == nil {
			err = m.took(f, &end)
		}
		if err == nil && end && !m.giver {
			err = m.acknowledge(0, true) // the giver waits for it
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && end:
			return
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		m.fail(fmt.Errorf("read: %w", err))
		return
	}
}

// arrivals is the stream's other direction; what a taker reads of it is acknowledged.
type arrivals struct{ m *Memory }

func (a arrivals) Read(p []byte) (int, error) {
	n, err := a.m.s.Read(p)
	if !a.m.giver && n > 0 && err == nil {
		err = a.m.acknowledge(n, false)
	}
	return n, err
}

// acknowledge counts n bytes that came, and tells the giver if they are many, or if it must know now.
func (m *Memory) acknowledge(n int, now bool) error {
	m.direct.Lock()
	defer m.direct.Unlock()
	m.got += uint64(n)
	if !now && m.got-m.told < flow.AckEvery {
		return nil
	}
	m.told = m.got
	if _, err := m.s.Write(appendMemAck(nil, m.got, uint64(m.given.Load()))); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// took deals with a frame.
func (m *Memory) took(f memFrame, end *bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case f.tag == memAck && m.giver:
		if f.given < uint64(m.given.Load()) || f.given > uint64(m.passed.Load())+maxMemData || f.got > uint64(m.win.Sent()) || !m.win.Ack(time.Since(m.begun), int64(f.got)) {
			return fmt.Errorf("acknowledgement of %d bytes, %d of content, of %d sent: %w", f.got, f.given, m.win.Sent(), ErrMalformed)
		}
		m.given.Store(int64(f.given))
		m.changed.Broadcast()
	case f.tag == memAck || *end:
		return fmt.Errorf("frame type 0x%02x out of place: %w", byte(f.tag), ErrMalformed)
	case f.tag == memEnd:
		*end, m.eof = true, true
		m.changed.Broadcast()
	default:
		for m.err == nil && m.queued >= memAhead {
			m.changed.Wait()
		}
		if m.err != nil {
			return m.err
		}
		m.queue = append(m.queue, append([]byte(nil), f.content...))
		m.queued += len(f.content)
		m.changed.Broadcast()
	}
	return nil
}

// Read returns what the peer's hypervisor has sent. To read on says that what was read before has been given to this device's.
func (m *Memory) Read(p []byte) (int, error) {
	if m.raw {
		return m.s.Read(p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owed > 0 {
		m.queue[0] = m.queue[0][m.owed:]
		m.queued -= m.owed
		if !m.giver {
			m.given.Add(int64(m.owed))
		}
		m.owed = 0
		if len(m.queue[0]) == 0 {
			m.queue = append(m.queue[:0], m.queue[1:]...)
		}
		if len(m.queue) == 0 && !m.giver {
			m.mu.Unlock()
			err := m.acknowledge(0, true) // nothing else may come that would tell it
			m.mu.Lock()
			if err != nil && !m.eof { // a giver that has ended needs no word
				m.failLocked(err)
			}
		}
		m.changed.Broadcast()
	}
	for len(m.queue) == 0 {
		switch {
		case m.eof:
			return 0, io.EOF
		case m.err != nil:
			return 0, m.err
		}
		m.changed.Wait()
	}
	m.owed = copy(p, m.queue[0])
	return m.owed, nil
}

// CloseWrite ends this direction: the peer reads io.EOF after it. The giver waits until all of it was given to the taker's hypervisor.
func (m *Memory) CloseWrite() error {
	switch {
	case m.raw:
		return m.s.CloseWrite()
	case !m.giver:
		// The stream's own end comes with Close: what the peer sends is still to be acknowledged.
		return m.now([]byte{byte(memEnd)})
	}
	if err := m.hand(0, []byte{byte(memEnd)}); err != nil {
		return err
	}
	m.mu.Lock()
	m.closing = true
	m.changed.Broadcast()
	m.toPack.Broadcast()
	for m.err == nil && (!m.flushed || m.win.Got() < m.win.Sent() || m.given.Load() < m.passed.Load()) {
		m.changed.Wait()
	}
	err := m.err
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.s.CloseWrite()
}

// Close ends the stream in order, both ways, and waits for its goroutines.
func (m *Memory) Close() error {
	err := m.s.Close()
	m.fail(errMemoryEnded)
	m.ended.Wait()
	return err
}

// Reset drops the stream, and waits for its goroutines.
func (m *Memory) Reset() error {
	err := m.s.Reset()
	m.fail(errMemoryEnded)
	m.ended.Wait()
	return err
}

func (m *Memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failLocked(err)
}

// failLocked ends all waiting; the first error is the one that counts.
func (m *Memory) failLocked(err error) {
	if m.err == nil {
		m.err = err
	}
	m.changed.Broadcast()
	m.toPack.Broadcast()
}
