package compare

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"tagalong.org/tagalong/p2p/replica"
)

const (
	// stallLimit is how long an owner's write, or its wait for one frame, may take.
	stallLimit = 2 * time.Minute
	// passes is how often an owner may ask for each region: the rest of what it asks is no comparison any more.
	passes = 4
	// flushEvery is how many regions are read before what they gave is sent.
	flushEvery = 16
)

// Serve answers the owner at the other end of s. open gets its Hello, already checked for sense, and returns the replica's disk, which must stay as
// it is until Serve returns, and its state; or an error to refuse (a *Refusal chooses what the owner is told). Serve returns nil when
// the owner ended the stream in order, ctx's cause if ctx ended, and otherwise what went wrong, of which the owner has been told if it still
// listens. The stream is closed or reset when Serve returns; the disk is the caller's.
func Serve(ctx context.Context, s Stream, open func(Hello) (Reader, State, error), stats *Stats) error {
	if stats == nil {
		stats = new(Stats)
	}
	br := bufio.NewReader(s)
	h, disk, _, err := replica.Receive(ctx, s, br, func(h Hello) (Reader, State, error) { return consider(h, open) })
	if err != nil {
		return fmt.Errorf("compare: serve hello: %w", err)
	}
	done := replica.ResetWith(ctx, s)
	x := &server{s: s, br: br, version: h.Version, size: h.Size, stats: stats}
	if x.sums, err = newSummer(disk, h.Size, h.Key, stats); err == nil {
		err = x.run()
	}
	if cause := done(); cause != nil {
		return fmt.Errorf("compare: serve: %w", cause)
	}
	if err != nil {
		replica.GiveUp(ctx, s, br, replica.AppendFail(nil, err.Error()))
		return fmt.Errorf("compare: serve: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("compare: serve: close: %w", err)
	}
	return nil
}

func consider(h Hello, open func(Hello) (Reader, State, error)) (Reader, State, error) {
	ours := Version
	if h.Version == 1 {
		ours = 1
	}
	if err := replica.Consider("compare", h.Version, ours, h.Target); err != nil {
		return nil, State{}, err
	}
	return open(h)
}

type server struct {
	s     Stream
	br    *bufio.Reader
	sums  *summer
	stats *Stats
	out   []byte

	version int
	size    int64
	asked   int64 // regions
}

func (x *server) run() error {
	regions := regionsOf(x.size)
	for {
		a, err := readAsk(x.br, regions, x.version)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		x.stats.Received.Add(a.size())
		if x.asked += a.count; x.asked > passes*regions {
			return fmt.Errorf("%d regions were asked for on a disk of %d: %w", x.asked, regions, ErrProtocol)
		}
		if a.kind == kindPart {
			err = x.part(a)
		} else {
			err = x.answer(a)
		}
		if err != nil {
			return err
		}
	}
}

// part answers a question for some leaves of one region. It isn't sent before there is much of it, while more such questions are there.
func (x *server) part(a ask) error {
	if err := x.sums.read(a.first, a.leaves); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	x.out = x.sums.appendTo(x.out, a.kind)
	if len(x.out) < readBuffer && x.br.Buffered() >= partSize {
		return nil
	}
	return x.flush()
}

// answer answers one question.
func (x *server) answer(a ask) error {
	zeros, read := int64(0), 0
	flush := func() error {
		if zeros > 0 {
			x.out, zeros = appendZeros(x.out, zeros), 0
		}
		read = 0
		return x.flush()
	}
	for at, end := a.first, a.first+a.count; ; at++ {
		n, err := x.sums.zeros(at, end-at)
		if err != nil {
			return fmt.Errorf("look for holes: %w", err)
		}
		if zeros, at = zeros+n, at+n; at == end {
			return flush()
		}
		if err := x.sums.read(at, allLeaves); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if x.sums.zero() {
			zeros++
		} else {
			if zeros > 0 {
				x.out, zeros = appendZeros(x.out, zeros), 0
			}
			x.out = x.sums.appendTo(x.out, a.kind)
		}
		if read++; read == flushEvery {
			if err := flush(); err != nil {
				return err
			}
		}
	}
}

// appendTo appends the answer that tells of the region that was read.
func (s *summer) appendTo(b []byte, of kind) []byte {
	switch of {
	case kindRegions:
		return appendSum(b, s.sum())
	case kindLeaves:
		m := s.present()
		b = binary.BigEndian.AppendUint64(append(b, byte(kindMiddle)), uint64(m))
		for l := range s.leaves() {
			if m.has(l) {
				t := s.leaf(l)
				b = append(b, t[:]...)
			}
		}
		return b
	}
	b = append(append(b, byte(kindTags)), s.data[:]...)
	for i := range s.blocks {
		if s.data.has(i) {
			t := s.tag(i)
			b = append(b, t[:]...)
		}
	}
	return b
}

func (x *server) flush() error {
	if len(x.out) == 0 {
		return nil
	}
	// As long as the connection lasts: the owner may read terabytes of its own disk for what it has, before it takes more.
	n, err := x.s.Write(x.out)
	x.stats.Sent.Add(int64(n))
	x.out = x.out[:0]
	if err != nil {
		return fmt.Errorf("write to the owner: %w", err)
	}
	return nil
}
