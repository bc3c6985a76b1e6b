package push

import (
	"errors"
	"fmt"
	"syscall"

	"tagalong.org/tagalong/p2p/replica"
)

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("push: protocol violation")
	// ErrNotNewer: the receiver is at the cut, or beyond it.
	ErrNotNewer = errors.New("push: the cut is not newer")
	// ErrHello: the Hello to send is not valid.
	ErrHello = errors.New("push: bad hello")
	// ErrSource: the own disk answered what it must not.
	ErrSource = errors.New("push: bad answer from the disk")
)

// RefuseNotNewer is the code of a Refusal: the receiver is at the cut, or beyond it.
const RefuseNotNewer = "not-newer"

// Codes of a Failure.
const (
	FailProtocol uint16 = 1 // the sender broke the protocol
	FailDisk     uint16 = 2 // the receiver's disk failed
	FailSpace    uint16 = 3 // the receiver's disk is full
)

// Failure ends a running push from the receiver's side. A Sink may return one (or an error wrapping it) to choose the code; Send returns it
// wrapped.
type Failure struct {
	Code uint16
	Text string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("push: receiver failed (%d): %s", f.Code, f.Text)
}

// failureOf tells the sender about err.
func failureOf(err error) *Failure {
	var f *Failure
	switch {
	case errors.As(err, &f):
		return &Failure{f.Code, replica.Clip(f.Text)}
	case errors.Is(err, ErrProtocol):
		return &Failure{FailProtocol, replica.Clip(err.Error())}
	case errors.Is(err, syscall.ENOSPC):
		return &Failure{FailSpace, replica.Clip(err.Error())}
	}
	return &Failure{FailDisk, replica.Clip(err.Error())}
}
