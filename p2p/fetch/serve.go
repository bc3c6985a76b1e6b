package fetch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/replica"
)

const (
	// readers is how many wants of a stream are read from the disk at once.
	readers = 4
	// zeroRun is the shortest run of zeros that is told as such between content, in bytes.
	zeroRun = 16 << 10
	// lead is what stands before the content in a buffer. The head needs less; but to a place that isn't aligned the kernel copies several times as
	// slowly on some processors.
	lead = 64
	// writeLimit is how long an asker may take to accept one answer.
	writeLimit = 60 * time.Second
)

// Serve answers the asker at the other end of s. open gets its Hello, already checked for sense, and returns this device's disk, which
// must stay the disk at the state's position until Serve returns (or say ErrOver), and the state; or an error to refuse (a *Refusal
// chooses what the asker is told). Serve returns nil when the asker ended the stream in order, ctx's cause if ctx ended, and
// otherwise what went wrong. The stream is closed or reset when it returns, and the disk isn't read any more; it is the caller's.
func Serve(ctx context.Context, s Stream, open func(Hello) (Reader, State, error), stats *Stats) error {
	if stats == nil {
		stats = new(Stats)
	}
	br := bufio.NewReader(s)
	h, disk, _, err := replica.Receive(ctx, s, br, func(h Hello) (Reader, State, error) { return consider(h, open) })
	if err != nil {
		return fmt.Errorf("fetch: serve hello: %w", err)
	}
	done := replica.ResetWith(ctx, s)
	x := &server{s: s, disk: disk, stats: stats}
	err = x.run(br, h.Size)
	if cause := done(); cause != nil {
		return fmt.Errorf("fetch: serve: %w", cause)
	}
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("fetch: serve: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("fetch: serve: close: %w", err)
	}
	return nil
}

// consider decides whether to answer.
func consider(h Hello, open func(Hello) (Reader, State, error)) (Reader, State, error) {
	if err := replica.Consider("fetch", h.Version, Version, h.Target); err != nil {
		return nil, State{}, err
	}
	if h.At.Term == 0 || h.At.Term > h.Term {
		return nil, State{}, &Refusal{Code: replica.RefuseHello, Text: "The position that is asked for is of no term up to the asker's."}
	}
	disk, st, err := open(h)
	switch {
	case err != nil:
		return nil, State{}, err
	case !st.Complete:
		return nil, State{}, &Refusal{Code: replica.RefuseBusy, Text: "The copy on this device isn't complete."}
	case st.Position.Term > h.Term:
		return nil, State{}, &Refusal{Code: replica.RefuseOldTerm, Text: fmt.Sprintf("This device has term %d, the asker says %d.", st.Position.Term, h.Term)}
	}
	return disk, st, nil
}

type server struct {
	s     Stream
	disk  Reader
	stats *Stats

	mu  sync.Mutex // held while an answer is written
	err error      // of writing
}

// run answers until the asker ends the stream. What isn't read from the stream yet takes no memory here.
func (x *server) run(br *bufio.Reader, size int64) error {
	work := make(chan question)
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			buf := make([]byte, lead+MaxWant)
			for q := range work {
				x.answer(q, buf)
			}
		})
	}
	var err error
	for err == nil {
		var q question
		if q, err = readQuestion(br, size); err != nil {
			break
		}
		if q.kind == kindPing {
			err = x.say(appendPong(nil, q.id))
			continue
		}
		work <- q
	}
	close(work)
	wg.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err != nil {
		return x.err // it is why reading failed
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read question: %w", err)
}

// answer answers one want; buf has room for lead and what is wanted.
func (x *server) answer(q question, buf []byte) {
	p := buf[lead : lead+q.len]
	if err := x.disk.ReadAt(p, q.off); err != nil {
		code := sorryRead
		if errors.Is(err, ErrNotHere) {
			code = sorryNotHere
		} else if errors.Is(err, ErrOver) {
			code = sorryOver
		}
		x.stats.Sorry.Add(1)
		_ = x.say(appendSorry(nil, q.id, code)) // run reports it
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for at := 0; at < q.len; {
		zero, n := nextRun(p[at:])
		// The head goes where the piece before was, which has been written.
		head, end := buf[lead-pieceHead+at:], pieceHead+n
		k, count := kindData, &x.stats.Data
		if zero {
			k, count, end = kindZero, &x.stats.Zeroed, pieceHead
		}
		putPiece(head, k, q.id, n)
		if x.write(head[:end]) != nil {
			return
		}
		count.Add(int64(n))
		at += n
	}
	x.stats.Wants.Add(1)
}

// nextRun says how many bytes at the beginning of p are to be told as zeros or as content. Short runs of zeros are content.
func nextRun(p []byte) (zero bool, n int) {
	if n = zeros(p); n == len(p) || n >= zeroRun {
		return true, n
	}
	for n < len(p) {
		z := zeros(p[n:])
		if z >= zeroRun {
			break
		}
		n = min(len(p), n+z+Block)
	}
	return false, n
}

// zeros is how many bytes at the beginning of p are blocks of zeros.
func zeros(p []byte) (n int) {
	for n < len(p) && bytes.Equal(p[n:n+Block], zeroBlock[:]) {
		n += Block
	}
	return n
}

var zeroBlock [Block]byte

// say writes one short answer.
func (x *server) say(p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.write(p)
}

// write writes to the asker. After an error the stream is reset, so that reading ends too. The caller holds mu.
func (x *server) write(p []byte) error {
	if x.err != nil {
		return x.err
	}
	err := x.s.SetWriteDeadline(time.Now().Add(writeLimit))
	if err == nil {
		_, err = x.s.Write(p)
	}
	if err != nil {
		x.err = fmt.Errorf("write to the asker: %w", err)
		_ = x.s.Reset()
	}
	return x.err
}
