package switching

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

// What is different for a guest that goes ahead of its memory (post-copy). It is stopped after one pass; what it has written since stays with the giver's
// hypervisor, and comes when it is asked for, or in the end. A Server and a Taker that follows see to that: whatever becomes of the line, the two
// hypervisors are given another one, until the memory is whole, or one of them is gone.

// GuestApart is a Guest that may go ahead.
type GuestApart interface {
	Guest
	TeleportApart(ctx context.Context) (hypervisor.OutgoingApart, error)
}

// Ender says that what it carries has ended: a Line or an Arrival of a guest that may go ahead is one.
type Ender interface{ Ended() <-chan struct{} }

// LineApart is a Line that is an Ender.
type LineApart interface {
	Line
	Ender
}

// ArrivalApart is an Arrival that is an Ender.
type ArrivalApart interface {
	Arrival
	Ender
}

// IncomingApart is an Incoming whose guest may go ahead; hypervisor.PostCopier is one.
type IncomingApart interface {
	Incoming
	IncomingApart(ctx context.Context) (io.ReadWriteCloser, error)
	LoadedApart(ctx context.Context) (bool, error)
	AwaitWhole(ctx context.Context) error
	TakeRest(ctx context.Context) (io.ReadWriteCloser, error)
}

// Rest is how the memory stands that a guest went ahead of.
type Rest struct {
	// Linked says that a stream is there over which it can come.
	Linked bool
	// Remaining is how many bytes are still to leave, and Sent how many have left since the guest went ahead; only a Server knows.
	Remaining, Sent int64
}

// Times of what can only be tried again.
const (
	redialEvery = time.Second
	lookEvery   = 500 * time.Millisecond
	// mendTimeout bounds the taking up of a new stream.
	mendTimeout = 15 * time.Second
)

// errLineEnded says that the stream of a guest ended that hadn't gone ahead yet.
var errLineEnded = errors.New("switching: the memory stream ended")

// goAhead has the hypervisor of a stopped guest keep the rest of the memory.
func goAhead(ctx context.Context, out hypervisor.Outgoing) error {
	if apart, ok := out.(hypervisor.OutgoingApart); ok {
		return apart.GoAhead(ctx)
	}
	return nil
}

// teleport begins to carry the memory away, in the way that was chosen.
func (g *Giver) teleport(ctx context.Context, guest Guest) (hypervisor.Outgoing, error) {
	if !g.PostCopy {
		return guest.Teleport(ctx)
	}
	apart, ok := guest.(GuestApart)
	if !ok {
		return nil, hypervisor.ErrNoPostCopy
	}
	return apart.TeleportApart(ctx)
}

// Left is the giver's hypervisor, which a guest has gone ahead of; hypervisor.PostCopier is one.
type Left interface {
	Apart(ctx context.Context) (hypervisor.Apart, error)
	SendRest(ctx context.Context) (io.ReadWriteCloser, error)
	Exited() <-chan struct{}
}

// ServerHost is told by a Server how it gets on, from Run's goroutine.
type ServerHost interface {
	// Rest says how the memory stands.
	Rest(ctx context.Context, r Rest)
	// Lost says that the rest can't come any more: the hypervisor that has it doesn't know how to go on.
	Lost(ctx context.Context, err error)
}

// Serving is the giver's part after the VM was given away. All fields are needed.
type Serving struct {
	Attempt string
	Guest   Left
	Streams Streams
	Host    ServerHost
	Clock   Clock
	Log     *slog.Logger
}

// Server lets the rest of the memory leave. Run is called once.
type Server struct {
	Serving
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	line   LineApart                // Run's own, as what follows
	out    hypervisor.OutgoingApart // what QEMU's first stream belongs to; nil behind a restart, or when that has ended
	sent   int64
}

// NewServer makes a Server; the caller calls Run in a goroutine of its own. before is the Giver that gave the VM away, nil if that was an earlier
// engine's. When ctx ends, so does the Server.
func NewServer(ctx context.Context, s Serving, before *Giver) *Server {
	ctx, cancel := context.WithCancel(ctx)
	v := &Server{Serving: s, ctx: ctx, cancel: cancel, done: make(chan struct{})}
	if before != nil {
		line, out := before.way()
		v.line, _ = line.(LineApart)
		v.out, _ = out.(hypervisor.OutgoingApart)
	}
	return v
}

// End ends Run and waits for that. The stream of a Giver, if it is still that, stays as it is.
func (s *Server) End() {
	if s == nil {
		return
	}
	s.cancel()
	<-s.done
}

// Run goes on until the memory has left, can't leave any more, the hypervisor has ended, or End.
func (s *Server) Run() {
	defer close(s.done)
	err := s.serve(s.ctx)
	switch {
	case s.ctx.Err() != nil, errors.Is(err, hypervisor.ErrNotRunning):
	case err != nil:
		s.Log.Warn("The rest of the memory can't leave", "attempt", s.Attempt, "error", err)
		s.Host.Lost(s.ctx, err)
	default:
		s.Log.Info("All of the memory has left", "attempt", s.Attempt)
	}
	if s.line != nil && s.out == nil {
		s.line.Close() // carried for this Server, whose end ends it
	}
}

func (s *Server) serve(ctx context.Context) error {
	for {
		over, err := s.look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case over || err != nil:
			return err
		}
		if s.line == nil {
			if err := s.mend(ctx); err != nil {
				return err
			}
			continue
		}
		soon, cancel := context.WithTimeout(ctx, lookEvery)
		select {
		case <-s.line.Ended():
			s.drop()
		case <-s.Guest.Exited():
			cancel()
			return hypervisor.ErrNotRunning
		case <-soon.Done():
		}
		cancel()
	}
}

// look says how it stands, and whether it is over.
func (s *Server) look(ctx context.Context) (over bool, err error) {
	a, err := s.Guest.Apart(ctx)
	if err != nil {
		return false, err
	}
	if a.Failed {
		return true, hypervisor.ErrApart
	}
	sent := s.sent
	if s.line != nil {
		sent += s.line.Sent()
	}
	s.Host.Rest(ctx, Rest{Linked: s.line != nil, Remaining: a.Remaining, Sent: sent})
	return a.Side == hypervisor.Whole, nil
}

// drop ends a line that is broken, for the hypervisor too.
func (s *Server) drop() {
	if s.out != nil {
		s.out.Sever()
	}
	s.sent += s.line.Sent()
	s.line.Close()
	s.line, s.out = nil, nil
	s.Log.Warn("The line was lost over which memory comes", "attempt", s.Attempt)
}

// mend opens a new line; it does nothing yet if there is no way to the taker, or the taker hasn't noticed.
func (s *Server) mend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	opened, err := s.Streams.Memory(ctx)
	if err != nil {
		return s.rest(ctx)
	}
	line, ok := opened.(LineApart)
	if !ok {
		opened.Close()
		return fmt.Errorf("a line that doesn't end: %w", hypervisor.ErrNoPostCopy)
	}
	stream, err := s.Guest.SendRest(ctx)
	if err != nil {
		line.Close()
		if errors.Is(err, hypervisor.ErrApart) {
			if a, asked := s.Guest.Apart(ctx); asked == nil && a.Side == hypervisor.Whole && !a.Failed {
				return nil // it ended meanwhile
			}
			return err
		}
		return s.rest(ctx)
	}
	line.Release()
	line.Carry(s.ctx, stream)
	s.line = line
	s.Log.Info("The rest of the memory goes on", "attempt", s.Attempt)
	return nil
}

// rest waits before the next try.
func (s *Server) rest(ctx context.Context) error {
	_ = s.Clock.Wait(ctx, redialEvery) // the caller looks at its own context
	return nil
}
