package mirror

import (
	"errors"
	"fmt"
	"syscall"

	"tagalong.org/tagalong/p2p/replica"
)

var (
	// ErrProtocol: the peer sent what the protocol forbids.
	ErrProtocol = errors.New("mirror: protocol violation")
	// ErrSource: the own Source produced an operation that must not be sent.
	ErrSource = errors.New("mirror: bad operation from the disk")
	// ErrHello: the Hello to send is not valid.
	ErrHello = errors.New("mirror: bad hello")
)

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

// failureOf tells the owner about err.
func failureOf(err error) *Failure {
	var f *Failure
	switch {
	case errors.As(err, &f):
		return &Failure{Code: f.Code, Text: replica.Clip(f.Text)}
	case errors.Is(err, ErrProtocol):
		return &Failure{Code: FailProtocol, Text: replica.Clip(err.Error())}
	case errors.Is(err, syscall.ENOSPC):
		return &Failure{Code: FailSpace, Text: replica.Clip(err.Error())}
	}
	return &Failure{Code: FailDisk, Text: replica.Clip(err.Error())}
}
