package compare

import (
	"bufio"
	"context"
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
	x := &server{s: s, br: br, size: h.Size, stats: stats}
	if x.sums, err = newSummer(disk, h.Size, h.Key, stats); err == nil {
		err = x.run()
	}
	if cause := done(); cause != nil {
		return fmt.Errorf("compare: serve: %w", cause)
	}
	if err != nil {
		replica.GiveUp(ctx, s, br, appendFail(nil, err.Error()))
		return fmt.Errorf("compare: serve: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("compare: serve: close: %w", err)
	}
	return nil
}

func consider(h Hello, open func(Hello) (Reader, State, error)) (Reader, State, error) {
	if err := replica.Consider("compare", h.Version, Version, h.Target); err != nil {
		return nil, State{}, err
	}
	return open(h)
}

type server struct {
	s     Stream
	br    *bufio.Reader
	size  int64
	sums  *summer
	stats *Stats
	out   []byte
	asked int64 // regions
}

func (x *server) run() error {
	regions := regionsOf(x.size)
	for {
		a, err := readAsk(x.br, regions)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		x.stats.Received.Add(askSize)
		if x.asked += a.count; x.asked > passes*regions {
			return fmt.Errorf("%d regions were asked for on a disk of %d: %w", x.asked, regions, ErrProtocol)
		}
		if err := x.answer(a); err != nil {
			return err
		}
	}
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
		if err := x.sums.read(at); err != nil {
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
	if of == kindRegions {
		return appendSum(b, s.sum())
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
