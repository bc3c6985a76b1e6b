package mirror

import (
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("mirror: protocol violation")
	// ErrSource: the own Source produced an operation that must not be sent.
	ErrSource = errors.New("mirror: bad operation from the disk")
	// ErrHello: the Hello to send is not valid.
	ErrHello = errors.New("mirror: bad hello")
)

// Codes of a Refusal.
const (
	RefuseVersion = "version"     // the replica doesn't speak this version
	RefuseHello   = "hello"       // the hello makes no sense
	RefuseUnknown = "unknown"     // the replica has no such disk and doesn't want it
	RefuseOldTerm = "old-term"    // the replica has seen a newer term
	RefuseBusy    = "busy"        // the disk is in use there, or another stream feeds it
	RefuseOther   = "unspecified" // see the text
)

// Refusal is the replica's answer when it won't be mirrored to. Receive's open
// function may return one (or an error wrapping it) to choose what the owner
// is told; Send returns it wrapped.
type Refusal struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("mirror: refused (%.64q): %.1024s", r.Code, r.Text)
}

// Codes of a Failure.
const (
	FailProtocol uint16 = 1 // the owner broke the protocol
	FailDisk     uint16 = 2 // the replica's disk failed
	FailSpace    uint16 = 3 // the replica's disk is full
	FailTerm     uint16 = 4 // the replica has seen a newer term
)

// Failure ends a running stream from the replica's side. A Sink may return one
// (or an error wrapping it) to choose the code; Send returns it wrapped.
type Failure struct {
	Code uint16
	Text string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("mirror: replica failed (%d): %s", f.Code, f.Text)
}

// refusalOf tells the owner about err.
func refusalOf(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return &Refusal{Code: r.Code, Text: clip(r.Text)}
	}
	return &Refusal{Code: RefuseOther, Text: clip(err.Error())}
}

// failureOf tells the owner about err.
func failureOf(err error) *Failure {
	var f *Failure
	switch {
	case errors.As(err, &f):
		return &Failure{Code: f.Code, Text: clip(f.Text)}
	case errors.Is(err, ErrProtocol):
		return &Failure{Code: FailProtocol, Text: clip(err.Error())}
	case errors.Is(err, syscall.ENOSPC):
		return &Failure{Code: FailSpace, Text: clip(err.Error())}
	}
	return &Failure{Code: FailDisk, Text: clip(err.Error())}
}

// clip shortens a text to what a Fail frame takes.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return s
}
