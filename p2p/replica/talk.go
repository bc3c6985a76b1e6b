package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

const (
	// shakeTimeout bounds each half of the beginning. Opening a replica may replay its log.
	shakeTimeout = 30 * time.Second
	// lastWords is how long a replica that gives up waits for the owner to read why.
	lastWords = 5 * time.Second
)

// answer is the replica's side of the beginning.
type answer struct {
	State
	Refusal *Refusal `json:"refusal,omitempty"`
}

// Greet says the hello, a JSON value, to the replica at the other end of s, and returns what it has. br reads s, and the answer is
// taken from it. A *Refusal of the replica is in the error's chain.
func Greet(ctx context.Context, s wire.Stream, br *bufio.Reader, hello any) (State, error) {
	done := wire.Bound(ctx, s.SetDeadline, shakeTimeout)
	err := wire.WriteJSON(s, hello)
	var a answer
	if err == nil {
		err = wire.CutShort(wire.ReadJSON(br, wire.MaxMessage, &a))
	}
	if err = done(err); err != nil {
		return State{}, err
	}
	if a.Refusal != nil {
		return State{}, refusalOf(a.Refusal)
	}
	return a.State, nil
}

// Receive reads the hello of the owner at the other end of s from br, and answers it with the state that open returns beside the disk, or
// with a refusal if open fails: a *Refusal in its error's chain chooses what the owner is told. If Receive fails the stream is closed, or reset
// if the owner wasn't told; a *Refusal is in the error's chain if it was.
func Receive[Hello, Disk any](ctx context.Context, s wire.Stream, br *bufio.Reader, open func(Hello) (Disk, State, error)) (h Hello, disk Disk, st State, err error) {
	done := wire.Bound(ctx, s.SetReadDeadline, shakeTimeout)
	if err = done(wire.CutShort(wire.ReadJSON(br, wire.MaxMessage, &h))); err != nil {
		_ = s.Reset()
		return h, disk, st, err
	}
	var a answer
	if disk, a.State, err = open(h); err != nil {
		a = answer{Refusal: refusalOf(err)}
	}
	done = wire.Bound(ctx, s.SetWriteDeadline, shakeTimeout)
	if werr := done(wire.WriteJSON(s, a)); werr != nil {
		_ = s.Reset()
		return h, disk, st, werr
	}
	if err != nil {
		_ = s.Close()
		return h, disk, st, fmt.Errorf("%w: %w", a.Refusal, err)
	}
	return h, disk, a.State, nil
}

// ResetWith resets s when ctx ends. The returned function ends that, and must be called: it returns ctx's cause if s was reset, or is
// about to be, after it was.
func ResetWith(ctx context.Context, s wire.Stream) (done func() error) {
	reset := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(reset)
		_ = s.Reset()
	})
	return func() error {
		if stop() {
			if ctx.Err() == nil {
				return nil
			}
			_ = s.Reset() // it has ended, and its reset had not begun
			return context.Cause(ctx)
		}
		<-reset
		return context.Cause(ctx)
	}
}

// GiveUp tells the owner the replica's last words, a frame of the protocol, and waits a little until it has read them: a reset would
// overtake them. Then the stream is reset. br reads s.
func GiveUp(ctx context.Context, s wire.Stream, br *bufio.Reader, words []byte) {
	done := wire.Bound(ctx, s.SetDeadline, lastWords)
	_, err := s.Write(words)
	if err == nil && s.CloseWrite() == nil {
		_, err = io.Copy(io.Discard, br)
	}
	// The words were a courtesy; the error that matters is the caller's already.
	_ = done(err)
	_ = s.Reset()
}

// Consider refuses a hello that speaks another version of the protocol, or makes no sense.
func Consider(protocol string, theirs, ours int, t Target) error {
	if theirs != ours {
		return &Refusal{Code: RefuseVersion, Text: fmt.Sprintf("This device speaks %s version %d, not %d.", protocol, ours, theirs)}
	}
	if err := t.Check(errHello); err != nil {
		return &Refusal{Code: RefuseHello, Text: err.Error()}
	}
	return nil
}

var errHello = errors.New("bad hello")
