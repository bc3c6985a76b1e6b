package api

import "errors"

// Code names a kind of failure. Codes are part of the API: never reused, never renamed.
type Code string

// The codes, and the exit status of the command line for each (see cmd/tagalong).
const (
	CodeInternal      Code = "internal"       // 1
	CodeUsage         Code = "usage"          // 2
	CodeNotFound      Code = "not-found"      // 3
	CodeConflict      Code = "conflict"       // 4: not possible in the present state
	CodeElsewhere     Code = "elsewhere"      // 5: the VM runs on another device
	CodeNoEngine      Code = "no-engine"      // 6: no engine answers here
	CodeBusy          Code = "busy"           // 7: something else is under way
	CodeNoHypervisor  Code = "no-hypervisor"  // 8
	CodeUnreachable   Code = "unreachable"    // 9: the other device isn't connected
	CodeCancelled     Code = "cancelled"      // 10
	CodeRefused       Code = "refused"        // 11: the other device said no
	CodeSpace         Code = "no-space"       // 12
	CodeEngineRunning Code = "engine-running" // 13: a second engine on one data directory
	CodeUnanswered    Code = "unanswered"     // 14: the guest doesn't do what it was asked
	CodeDamaged       Code = "damaged"        // 1: a disk isn't what it should be
)

// Error is what a person gets to see: a sentence, what to do next, and the cause for the log.
type Error struct {
	Code     Code   `json:"code"`
	Sentence string `json:"sentence"`
	Next     string `json:"next,omitempty"`
	// Remedy is what Next comes to, for a face that has a button for it.
	Remedy Remedy `json:"remedy,omitempty"`
	// Topic names what the sentence tells of, and Other the other device in it; "" where no face needs to know.
	Topic Topic  `json:"topic,omitempty"`
	Other string `json:"other,omitempty"`
	Cause string `json:"cause,omitempty"`
}

// Error is the sentence and the next step.
func (e *Error) Error() string {
	if e.Next == "" {
		return e.Sentence
	}
	return e.Sentence + " " + e.Next
}

// Is makes errors.Is compare by code, so that tests and callers can ask for a kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Sentence == ""
}

// AsError finds the *Error in err's chain, or makes one of code internal around it.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Sentence: "Something went wrong inside Tagalong.", Next: "Its log has the cause; please report it.", Cause: err.Error()}
}
