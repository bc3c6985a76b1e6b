package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

// version is the newest version of the protocol; 1 knows no chunks.
const version = 2

// getBatch is how many records are asked of the store at once: at most 4 MiB.
const getBatch = 16

// errEnd: the peer ended the stream in order.
var errEnd = errors.New("end of stream")

// Serve keeps store in step with the peer at the other end of s until the
// stream ends (nil), ctx ends (its cause) or the peer breaks the protocol. The
// stream is closed or reset when Serve returns. peer is the device's ID; log
// may be nil.
func Serve(ctx context.Context, s Stream, peer string, store Store, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := wire.NewConn(s)
	spoken, err := c.Greet(ctx, wire.Greeting{Protocol: Protocol, Version: version, Oldest: 1})
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("exchange: %w", err)
	}
	changed, stopChanged := store.Changed()
	defer stopChanged()
	x := &session{
		c: c, peer: peer, store: store, log: log, changed: changed,
		greeted: make(chan struct{}), known: map[string]uint64{},
		waiting: newWaiting(store, peer, log),
		trades:  spoken >= 2, again: make(chan struct{}, 1), trade: newTrade(),
	}
	defer x.release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, part := range []func(context.Context) error{x.read, x.write} {
		wg.Go(func() { cancel(part(ctx)) })
	}
	wg.Wait()
	err = context.Cause(ctx)
	if errors.Is(err, errEnd) {
		if err := s.Close(); err != nil {
			return fmt.Errorf("exchange: close: %w", err)
		}
		return nil
	}
	_ = s.Reset()
	return fmt.Errorf("exchange: %w", err)
}

// session is one running Serve. read and write return only with an error.
type session struct {
	c       *wire.Conn
	peer    string
	store   Store
	log     *slog.Logger
	changed <-chan struct{}
	greeted chan struct{} // closed when the peer's digest is complete
	waiting *waiting
	trades  bool          // both ends know chunks
	again   chan struct{} // the writer has something to do

	mu    sync.Mutex
	known map[string]uint64 // what the peer has, as far as we know
	trade trade
}

func (x *session) read(ctx context.Context) error {
	complete := false
	for {
		var m message
		blob, err := x.c.RecvWithBlob(ctx, &m, func() (int, error) {
			if !x.trades {
				return 0, nil
			}
			return x.blob(&m)
		})
		if err == io.EOF {
			return errEnd
		}
		if err != nil {
			return err
		}
		switch m.Type {
		case typeDigest:
			if complete {
				return fmt.Errorf("second digest: %w", ErrProtocol)
			}
			for k, v := range m.Versions {
				if err := x.learn(k, v); err != nil {
					return fmt.Errorf("digest: %w: %w", ErrProtocol, err)
				}
			}
			if !m.More {
				complete = true
				close(x.greeted)
			}
		case typeRecords:
			if err := x.accept(m.Records); err != nil {
				return fmt.Errorf("records: %w: %w", ErrProtocol, err)
			}
		}
		if x.trades {
			if err := x.readTrade(&m, blob); err != nil {
				return err
			}
		}
	}
}

func (x *session) readTrade(m *message, blob []byte) error {
	switch m.Type {
	case typeWant:
		return x.wanted(m.Hashes)
	case typeChunks:
		return x.got(m, blob)
	case typeHave:
		x.had(m.Hashes)
	}
	return nil
}

// learn notes that the peer has version v of k.
func (x *session) learn(k string, v uint64) error {
	if err := checkKey(k); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	old, ok := x.known[k]
	if !ok && len(x.known) >= MaxKeys {
		return ErrTooMany
	}
	x.known[k] = max(old, v)
	return nil
}

// accept hands the peer's records to the store.
func (x *session) accept(records []Record) error {
	for i := range records {
		r := &records[i]
		if err := checkRecord(r); err != nil {
			return err
		}
		// First of all, so that the change that follows isn't sent back.
		if err := x.learn(r.Key, r.Version); err != nil {
			return err
		}
		x.waiting.add(r)
	}
	x.waiting.settle()
	return nil
}

func (x *session) write(ctx context.Context) error {
	if err := x.sendDigest(ctx); err != nil {
		return err
	}
	select {
	case <-x.greeted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	news := true
	for {
		// Records go before chunks, whatever is asked for.
		if news {
			if err := x.sendNews(ctx); err != nil {
				return err
			}
		}
		more, wait, err := x.writeTrade(ctx, news)
		if err != nil {
			return err
		}
		var late <-chan time.Time
		if wait > 0 {
			late = time.After(wait)
		}
		if more {
			x.nudge()
		}
		news = false
		select {
		case <-x.changed:
			x.waiting.settle()
			news = true
			continue
		default:
		}
		select {
		case <-x.changed:
			x.waiting.settle()
			news = true
		case <-x.again:
		case <-late:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// writeTrade asks for chunks and sends a few of those asked for. It says whether there are more, and how long at most the peer's answer
// is to be waited for.
func (x *session) writeTrade(ctx context.Context, news bool) (more bool, wait time.Duration, err error) {
	if !x.trades {
		return false, 0, nil
	}
	wait = x.impatient()
	if news {
		if err := x.tell(ctx); err != nil {
			return false, 0, err
		}
	}
	if err := x.ask(ctx); err != nil {
		return false, 0, err
	}
	more, err = x.serve(ctx)
	return more, max(wait, 0), err
}

func (x *session) sendDigest(ctx context.Context) error {
	d := x.store.Digest()
	if len(d) > MaxKeys {
		return fmt.Errorf("own digest of %d records: %w", len(d), ErrTooMany)
	}
	m := message{Type: typeDigest, Versions: map[string]uint64{}, More: true}
	cost := 0
	for k, v := range d {
		if checkKey(k) != nil {
			continue // sendNews reports it
		}
		m.Versions[k] = v
		if cost += keyCost(k); cost < pieceCost {
			continue
		}
		if err := x.c.Send(ctx, m); err != nil {
			return err
		}
		clear(m.Versions)
		cost = 0
	}
	m.More = false
	return x.c.Send(ctx, m)
}

// sendNews sends what is newer here than at the peer.
func (x *session) sendNews(ctx context.Context) error {
	var keys []string
	digest := x.store.Digest()
	x.mu.Lock()
	for k, v := range digest {
		if v > x.known[k] {
			keys = append(keys, k)
		}
	}
	x.mu.Unlock()
	slices.SortFunc(keys, compareKeys)
	m := message{Type: typeRecords}
	cost := 0
	flush := func() error {
		if len(m.Records) == 0 {
			return nil
		}
		err := x.c.Send(ctx, m)
		m.Records, cost = m.Records[:0], 0
		return err
	}
	for batch := range slices.Chunk(keys, getBatch) {
		records := x.store.Get(batch)
		slices.SortFunc(records, func(a, b Record) int { return compareKeys(a.Key, b.Key) })
		for _, r := range records {
			if !x.take(&r) {
				continue
			}
			m.Records = append(m.Records, r)
			if cost += recordCost(&r); cost < pieceCost {
				continue
			}
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// take decides whether r is to be sent and notes that it will be.
func (x *session) take(r *Record) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.Version <= x.known[r.Key] {
		return false
	}
	x.known[r.Key] = r.Version
	if err := checkRecord(r); err != nil {
		x.log.Error("Own record cannot be sent", "peer", x.peer, "key", r.Key, "error", err)
		return false
	}
	return true
}
