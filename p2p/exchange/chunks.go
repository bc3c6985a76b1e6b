package exchange

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Limits of chunks.
const (
	MaxChunk = 1<<17 + 16 // bytes of one
	MaxHash  = 64         // bytes of a hash

	window     = 64         // asked for at once
	maxAsked   = 4 * window // that the peer may ask for at once
	chunkBatch = 128 << 10  // bytes in one message, before its last chunk
	maxAgain   = 8          // times that the peer may have one chunk, within
	againAfter = 10 * time.Minute
	maxParked  = 1 << 16 // chunks that one end lacked
	// answerTimeout is how long a peer may send no chunk that it was asked for before others are asked.
	answerTimeout = time.Minute
)

// Chunk is a piece of data that records name by its hash.
type Chunk struct {
	Hash string
	Data []byte
}

// Chunks is the part of a Store that has them. All methods may be called from several goroutines.
type Chunks interface {
	// Wants returns at most max hashes of chunks that are missing and of which skip is false, and claims them for peer: nobody else
	// is told to ask for them until they came or Unwant. skip doesn't call the Store.
	Wants(peer string, max int, skip func(hash string) bool) []string
	// Unwant gives up peer's claims. Others that wait for changes hear of it.
	Unwant(peer string, hashes []string)
	// Has tells whether a chunk is here.
	Has(hash string) bool
	// Chunk returns a chunk of at most MaxChunk bytes, not empty, or false.
	Chunk(hash string) ([]byte, bool)
	// PutChunks stores chunks that came from a peer, as far as they are still missing; the bytes are the callee's. An error that is
	// ErrProtocol says that the peer made them up.
	PutChunks(from string, chunks []Chunk) error
}

// trade is a session's give and take of chunks. Guarded by session.mu.
type trade struct {
	asked    map[string]bool // of the peer, not answered; true: given up, others may be asked
	progress time.Time       // when the peer last answered, or was asked after a pause
	lacks    map[string]struct{}
	queue    []string         // the peer's wants, in order
	served   map[string]uint8 // how often, since
	since    time.Time
	parked   map[string]struct{} // what the peer wants and isn't here
}

func newTrade() trade {
	return trade{asked: map[string]bool{}, lacks: map[string]struct{}{}, served: map[string]uint8{}, parked: map[string]struct{}{}}
}

// wanted takes the peer's wish.
func (x *session) wanted(hashes []string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.trade.since) > againAfter { // the same set may come and go for as long as the stream lasts
		x.trade.since = time.Now()
		clear(x.trade.served)
	}
	if len(x.trade.queue)+len(hashes) > maxAsked {
		return fmt.Errorf("%d chunks wanted at once: %w", len(x.trade.queue)+len(hashes), ErrProtocol)
	}
	for _, h := range hashes {
		if h == "" || len(h) > MaxHash {
			return fmt.Errorf("hash of %d bytes: %w", len(h), ErrProtocol)
		}
		if x.trade.served[h] >= maxAgain {
			return fmt.Errorf("a chunk wanted again and again: %w", ErrProtocol)
		}
	}
	x.trade.queue = append(x.trade.queue, hashes...)
	x.nudge()
	return nil
}

// had hears that the peer has now what it lacked.
func (x *session) had(hashes []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range hashes {
		delete(x.trade.lacks, h)
	}
	x.nudge()
}

// blob checks the head of a message with chunks and returns the length of what follows.
func (x *session) blob(m *message) (total int, err error) {
	if m.Type != typeChunks {
		return 0, nil
	}
	if len(m.Hashes) != len(m.Sizes) || len(m.Hashes) == 0 || len(m.Hashes) > maxAsked {
		return 0, fmt.Errorf("%d chunks of %d sizes: %w", len(m.Hashes), len(m.Sizes), ErrProtocol)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	seen := make(map[string]struct{}, len(m.Hashes))
	for i, h := range m.Hashes {
		if _, asked := x.trade.asked[h]; !asked {
			return 0, fmt.Errorf("a chunk that wasn't asked for: %w", ErrProtocol)
		}
		seen[h] = struct{}{}
		if m.Sizes[i] < 0 || m.Sizes[i] > MaxChunk {
			return 0, fmt.Errorf("chunk of %d bytes: %w", m.Sizes[i], ErrProtocol)
		}
		total += m.Sizes[i]
	}
	if len(seen) != len(m.Hashes) || total > chunkBatch+MaxChunk {
		return 0, fmt.Errorf("%d chunks of %d bytes in one message: %w", len(m.Hashes), total, ErrProtocol)
	}
	return total, nil
}

// got stores what was asked for. A size of 0 says that the peer doesn't have it.
func (x *session) got(m *message, blob []byte) error {
	var list []Chunk
	var without []string
	for i, h := range m.Hashes {
		if n := m.Sizes[i]; n > 0 {
			list = append(list, Chunk{h, blob[:n:n]})
			blob = blob[n:]
		} else {
			without = append(without, h)
		}
	}
	var err error
	if len(list) > 0 {
		err = x.store.PutChunks(x.peer, list)
	}
	if errors.Is(err, ErrProtocol) {
		return err
	}
	if err != nil {
		x.log.Warn("Chunks can't be stored", "peer", x.peer, "count", len(list), "error", err)
		for _, c := range list {
			without = append(without, c.Hash) // not again in this session
		}
	}
	x.mu.Lock()
	for _, h := range m.Hashes {
		delete(x.trade.asked, h)
	}
	x.lack(without)
	x.trade.progress = time.Now()
	x.nudge()
	x.mu.Unlock()
	x.store.Unwant(x.peer, m.Hashes) // what was stored has no claim any more
	return nil
}

// lack notes what isn't to be asked of the peer, until it says that it has it. The caller holds mu.
func (x *session) lack(hashes []string) {
	for _, h := range hashes {
		if len(x.trade.lacks) >= maxParked {
			clear(x.trade.lacks)
		}
		x.trade.lacks[h] = struct{}{}
	}
}

// ask sends the peer what is wanted of it, as far as the window allows.
func (x *session) ask(ctx context.Context) error {
	x.mu.Lock()
	free := window - len(x.trade.asked)
	lacks := maps.Clone(x.trade.lacks)
	x.mu.Unlock()
	if free < window/2 {
		return nil // some at once, not each by itself
	}
	hashes := x.store.Wants(x.peer, free, func(h string) bool { _, no := lacks[h]; return no })
	if len(hashes) == 0 {
		return nil
	}
	x.mu.Lock()
	if len(x.trade.asked) == 0 {
		x.trade.progress = time.Now()
	}
	for _, h := range hashes {
		x.trade.asked[h] = false
	}
	x.mu.Unlock()
	return x.c.Send(ctx, message{Type: typeWant, Hashes: hashes})
}

// impatient gives up what the peer should have sent, so that others are asked. It returns how long there is still to wait, 0 if for nothing.
func (x *session) impatient() time.Duration {
	x.mu.Lock()
	var late []string
	waits := false
	left := answerTimeout - time.Since(x.trade.progress)
	for h, gone := range x.trade.asked {
		waits = waits || !gone
		if !gone && left <= 0 {
			x.trade.asked[h] = true
			late = append(late, h)
		}
	}
	x.lack(late)
	x.mu.Unlock()
	if len(late) > 0 {
		x.log.Warn("A peer doesn't send the chunks that it was asked for", "peer", x.peer, "count", len(late))
		x.store.Unwant(x.peer, late)
		return 0
	}
	if !waits {
		return 0
	}
	return left
}

// release gives up all claims at the end of the session.
func (x *session) release() {
	x.mu.Lock()
	hashes := make([]string, 0, len(x.trade.asked))
	for h := range x.trade.asked {
		hashes = append(hashes, h)
	}
	x.mu.Unlock()
	x.store.Unwant(x.peer, hashes)
}

// serve sends one message of what the peer wants, and says whether there is more.
func (x *session) serve(ctx context.Context) (more bool, err error) {
	m := message{Type: typeChunks}
	var blob []byte
	for len(blob) < chunkBatch {
		x.mu.Lock()
		if len(x.trade.queue) == 0 {
			x.mu.Unlock()
			break
		}
		h := x.trade.queue[0]
		x.trade.queue = x.trade.queue[1:]
		x.mu.Unlock()
		data, ok := x.store.Chunk(h)
		if ok && (len(data) == 0 || len(data) > MaxChunk) {
			x.log.Error("Own chunk cannot be sent", "peer", x.peer, "hash", h, "bytes", len(data))
			ok = false
		}
		x.mu.Lock()
		if !ok {
			data = nil
			if len(x.trade.parked) < maxParked {
				x.trade.parked[h] = struct{}{}
			}
		} else {
			x.trade.served[h]++
		}
		x.mu.Unlock()
		m.Hashes, m.Sizes, blob = append(m.Hashes, h), append(m.Sizes, len(data)), append(blob, data...)
	}
	if len(m.Hashes) == 0 {
		return false, nil
	}
	return true, x.c.SendWithBlob(ctx, m, blob)
}

// tell says what has come that the peer wanted.
func (x *session) tell(ctx context.Context) error {
	x.mu.Lock()
	parked := slices.Collect(maps.Keys(x.trade.parked))
	x.mu.Unlock()
	come := slices.DeleteFunc(parked, func(h string) bool { return !x.store.Has(h) })
	for part := range slices.Chunk(come, maxAsked) {
		x.mu.Lock()
		for _, h := range part {
			delete(x.trade.parked, h)
		}
		x.mu.Unlock()
		if err := x.c.Send(ctx, message{Type: typeHave, Hashes: part}); err != nil {
			return err
		}
	}
	return nil
}

// nudge has the writer look again.
func (x *session) nudge() {
	select {
	case x.again <- struct{}{}:
	default:
	}
}
