package wire

import (
	"context"
	"io"
	"time"
)

// Stream is what the protocols need of a connection between two devices: a
// full-duplex byte stream with half-close and deadlines, like a libp2p stream
// or a TCP connection. One reader and one writer may use it at once; Close,
// Reset and the deadlines may be called from anywhere and unblock both.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite ends the own direction; the peer reads io.EOF after what was sent.
	CloseWrite() error
	// Reset drops both directions at once; the peer's calls fail.
	Reset() error
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// past is a deadline that has always expired.
var past = time.Unix(1, 0)

// Bound makes ctx, and limit from now unless that is zero, govern one direction
// of a stream until the returned function is called: the end of ctx interrupts
// a blocked call, and so does the limit, as a deadline set with set. The
// returned function waits until no interruption is under way, clears the
// deadline and turns err, the outcome of the call, into ctx's cause if ctx has
// ended.
func Bound(ctx context.Context, set func(time.Time) error, limit time.Duration) func(err error) error {
	var at time.Time
	if limit > 0 {
		at = time.Now().Add(limit)
	}
	// A stream that can't take a deadline is closed or broken: the call that
	// follows says so itself.
	_ = set(at)
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ran)
		_ = set(past)
	})
	return func(err error) error {
		if !stop() {
			<-ran
		}
		_ = set(time.Time{})
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}
