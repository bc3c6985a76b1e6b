// Package request lets a device ask the owner of a VM for what only the owner may do: to change its record, and more. Protocol Protocol, one short
// stream a request.
//
// After the wire greeting:
//
//	device: {"vm": …, "what": …, "change": {…}}
//	owner:  {"done": true, "says": {…}} or {"done": false, "why": {…}}
//
// Without a what, the change is to the VM's record; version 1 has none but that. What a what, a change, a why and what is said are is the engines' own business:
// here the latter are JSON values of at most MaxChange bytes. The answer is true when what was asked for is so, durably. That a device asked says
// nothing of whether it may: who hears decides.
//
// It guarantees that a request is carried out at most once a stream, and that Ask's nil means that the owner said so. It doesn't
// guarantee that a request whose answer was lost wasn't carried out: changes must bear being asked for twice.
//
// To test: go test -race ./p2p/request ; go test -fuzz=FuzzHear ./p2p/request
package request

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tagalong.org/tagalong/p2p/wire"
)

// Protocol is this protocol's name.
const Protocol = "/tagalong/request/1"

// MaxChange bounds a change and a why, in bytes of JSON.
const MaxChange = 4 << 10

// MaxWhat bounds a what, in bytes.
const MaxWhat = 32

// whatSince is the version of the protocol that has a what.
const whatSince = 2

// patience is how long a request may take in all.
const patience = 30 * time.Second

var (
	// ErrRefused: the owner said no; Ask returns its words.
	ErrRefused = errors.New("request: refused")
	// ErrOld: the owner's program is too old for what is asked for. It wasn't asked.
	ErrOld = errors.New("request: the other device's program is too old")
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("request: protocol violation")
)

// Stream is the connection to the other device.
type Stream = wire.Stream

// Request is what is asked for, of one VM.
type Request struct {
	VM string `json:"vm"` // 32 hexadecimal digits
	// What is asked for; "" is a change of the record. At most MaxWhat bytes.
	What   string          `json:"what,omitempty"`
	Change json.RawMessage `json:"change"`
}

type answer struct {
	Done bool            `json:"done"`
	Says json.RawMessage `json:"says,omitempty"`
	Why  json.RawMessage `json:"why,omitempty"`
}

var greeting = wire.Greeting{Protocol: Protocol, Version: 2, Oldest: 1}

func (r Request) check() error {
	if len(r.VM) != 32 {
		return fmt.Errorf("a VM's ID of %d letters: %w", len(r.VM), ErrProtocol)
	}
	for _, c := range r.VM {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%.40q is no VM's ID: %w", r.VM, ErrProtocol)
		}
	}
	if len(r.What) > MaxWhat {
		return fmt.Errorf("a what of %d bytes: %w", len(r.What), ErrProtocol)
	}
	if len(r.Change) == 0 || len(r.Change) > MaxChange {
		return fmt.Errorf("a change of %d bytes: %w", len(r.Change), ErrProtocol)
	}
	return nil
}

// Ask returns nil once the owner at the other end of s has done what r asks for. If it refuses, why are its words, which may be nil, and
// the error is ErrRefused; others are ErrOld, ErrProtocol and those of the stream. The stream is closed or reset when it returns.
func Ask(ctx context.Context, s Stream, r Request) (why json.RawMessage, err error) {
	a, err := ask(ctx, s, r)
	if errors.Is(err, ErrRefused) {
		why = a.Why
	}
	return why, err
}

// AskFor is Ask of who wants to know something: says are the owner's words, nil if it has none. They are at most MaxChange bytes of JSON, and else a stranger's.
func AskFor(ctx context.Context, s Stream, r Request) (says json.RawMessage, err error) {
	a, err := ask(ctx, s, r)
	if err != nil {
		return nil, err
	}
	return a.Says, nil
}

func ask(ctx context.Context, s Stream, r Request) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := wire.NewConn(s)
	if err = r.check(); err == nil {
		var version int
		if version, err = c.Greet(ctx, greeting); err == nil && r.What != "" && version < whatSince {
			err = ErrOld
		}
	}
	if err == nil {
		err = c.Send(ctx, r)
	}
	if err == nil {
		err = c.Recv(ctx, &a)
	}
	switch {
	case err != nil:
	case len(a.Why) > MaxChange || len(a.Says) > MaxChange:
		err = fmt.Errorf("an answer of %d bytes: %w", len(a.Why)+len(a.Says), ErrProtocol)
	case !a.Done:
		err = ErrRefused
	}
	return a, end(s, err)
}

// Hear takes one request and has do carry it out. The words that do returns go to whoever asked, as a reason where there is an error beside them, unless
// they are longer than MaxChange. The stream is closed or reset when it returns.
func Hear(ctx context.Context, s Stream, do func(context.Context, Request) (words json.RawMessage, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := wire.NewConn(s)
	var r Request
	_, err := c.Greet(ctx, greeting)
	if err == nil {
		err = c.Recv(ctx, &r)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return end(s, err)
	}
	words, refused := do(ctx, r)
	a := answer{Done: refused == nil}
	switch {
	case len(words) > MaxChange:
	case refused != nil:
		a.Why = words
	default:
		a.Says = words
	}
	err = c.Send(ctx, a)
	if err == nil && refused != nil {
		err = fmt.Errorf("%w: %w", ErrRefused, refused)
	}
	return end(s, err)
}

// end closes the stream, in order or not.
func end(s Stream, err error) error {
	if err == nil || errors.Is(err, ErrRefused) {
		_ = s.CloseWrite()
		err = errors.Join(err, s.Close())
	} else {
		_ = s.Reset()
	}
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	return nil
}
