// Package reached lets a device tell the owner of a VM where its replica is, when something else than the owner's own stream brought it there:
// a push from a postmaster; or that it has none any more, as when it was set aside. Protocol Protocol, one short stream a report.
//
// After the wire greeting:
//
//	replica: {"vm": …, "disk": …, "size": …, "term": …, "complete": true, "position": {…}}
//	owner:   {"noted": true|false}
//
// The position is 0/0 where there is no whole replica. The answer is true when the owner counts on it, durably. A report is about the sender's own replica only: who lies harms that.
//
// To test: go test -race ./p2p/reached ; go test -fuzz=FuzzHear ./p2p/reached
package reached

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is this protocol's name.
const Protocol = "/tagalong/reached/1"

// patience is how long a report may take in all.
const patience = 30 * time.Second

var (
	// ErrNotNoted: the other device doesn't count on the report, at present or at all.
	ErrNotNoted = errors.New("reached: not noted")
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("reached: protocol violation")
)

// Stream is the connection to the other device.
type Stream = wire.Stream

// Report says where the sender's replica is, of the disk that the owner under the term has; nowhere, if the position is zero.
type Report struct {
	replica.Target
	Position replica.Position `json:"position"`
}

type answer struct {
	Noted bool `json:"noted"`
}

var greeting = wire.Greeting{Protocol: Protocol, Version: 1, Oldest: 1}

// Tell returns nil once the owner at the other end of s has noted the report. The stream is closed or reset when it returns. Errors: ErrNotNoted,
// ErrProtocol, those of the stream.
func Tell(ctx context.Context, s Stream, r Report) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := wire.NewConn(s)
	var a answer
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Send(ctx, r)
	}
	if err == nil {
		err = c.Recv(ctx, &a)
	}
	if err == nil && !a.Noted {
		err = ErrNotNoted
	}
	return end(s, err)
}

// Hear takes one report and has note see it, which says whether it counts. The stream is closed or reset when it returns.
func Hear(ctx context.Context, s Stream, note func(Report) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := wire.NewConn(s)
	var r Report
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Recv(ctx, &r)
	}
	if err == nil {
		err = r.Check(ErrProtocol)
	}
	if err == nil && r.Position.Term > r.Term {
		err = fmt.Errorf("at term %d under term %d: %w", r.Position.Term, r.Term, ErrProtocol)
	}
	if err != nil {
		return end(s, err)
	}
	refused := note(r)
	err = c.Send(ctx, answer{Noted: refused == nil})
	if err == nil && refused != nil {
		err = fmt.Errorf("%w: %w", ErrNotNoted, refused)
	}
	return end(s, err)
}

// end closes the stream, in order or not.
func end(s Stream, err error) error {
	if err == nil || errors.Is(err, ErrNotNoted) {
		_ = s.CloseWrite()
		err = errors.Join(err, s.Close())
	} else {
		_ = s.Reset()
	}
	if err != nil {
		return fmt.Errorf("reached: %w", err)
	}
	return nil
}
