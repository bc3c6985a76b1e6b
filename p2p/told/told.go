// Package told asks another device whether certain records have reached it, for whoever must be sure before the cable goes:
// the exchange of records itself acknowledges nothing. Protocol Protocol, one short stream a question.
//
// After the wire greeting:
//
//	asker:    {"versions": {key: version, …}}
//	answerer: {"held": true|false}
//
// The answer is true as soon as the answerer holds every record in that version or a newer one, durably, and false when
// that takes longer than Patience. To test: go test -race ./p2p/told ; go test -fuzz=FuzzAnswer ./p2p/told (and FuzzAsk)
package told

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is this protocol's name.
const Protocol = "/tagalong/told/1"

// Patience is how long an answerer waits for records that aren't there yet.
const Patience = 10 * time.Second

// Limits of a question.
const (
	maxKeys = 1024
	maxKey  = 256 // bytes
)

var (
	// ErrNotHeld: the other device doesn't have all the records.
	ErrNotHeld = errors.New("told: the records haven't arrived")
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("told: protocol violation")
)

// Stream is the connection to the other device.
type Stream = wire.Stream

// Store knows the versions of the records that are here.
type Store interface {
	// Holds says whether the record is here, durably, in that version or a newer one.
	Holds(key string, version uint64) bool
	// Changed gets a wake-up after every change, until the function is called.
	Changed() (<-chan struct{}, func())
}

type question struct {
	Versions map[string]uint64 `json:"versions"`
}

type answer struct {
	Held bool `json:"held"`
}

var greeting = wire.Greeting{Protocol: Protocol, Version: 1, Oldest: 1}

// Ask returns nil once the device at the other end says that it holds the records in these versions. The end of ctx gives
// up. The stream is closed or reset when Ask returns. Errors: ErrNotHeld, those of the stream.
func Ask(ctx context.Context, s Stream, versions map[string]uint64) error {
	c := wire.NewConn(s)
	var a answer
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Send(ctx, question{versions})
	}
	if err == nil {
		err = c.Recv(ctx, &a)
	}
	if err == nil && !a.Held {
		err = ErrNotHeld
	}
	return end(s, err)
}

// Answer answers one question. The stream is closed or reset when it returns.
func Answer(ctx context.Context, s Stream, store Store) error {
	ctx, cancel := context.WithTimeout(ctx, wire.GreetTimeout+2*Patience)
	defer cancel()
	c := wire.NewConn(s)
	var q question
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Recv(ctx, &q)
	}
	if err == nil {
		err = q.check()
	}
	if err == nil {
		err = c.Send(ctx, answer{Held: await(ctx, q, store)})
	}
	return end(s, err)
}

func (q question) check() error {
	if len(q.Versions) > maxKeys {
		return ErrProtocol
	}
	for key := range q.Versions {
		if len(key) > maxKey {
			return ErrProtocol
		}
	}
	return nil
}

func await(ctx context.Context, q question, store Store) bool {
	changed, stop := store.Changed()
	defer stop()
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		held := true
		for key, version := range q.Versions {
			held = held && store.Holds(key, version)
		}
		if held {
			return true
		}
		select {
		case <-changed:
		case <-late.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// end closes the stream, in order or not.
func end(s Stream, err error) error {
	if err == nil || errors.Is(err, ErrNotHeld) {
		_ = s.CloseWrite()
		err = errors.Join(err, s.Close())
	} else {
		_ = s.Reset()
	}
	if err != nil {
		return fmt.Errorf("told: %w", err)
	}
	return nil
}
