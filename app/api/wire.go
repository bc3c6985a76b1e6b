package api

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Limits of the protocol. Both sides enforce what concerns them.
const (
	maxRequestBytes  = 64 << 10
	maxResponseBytes = 16 << 20
	maxEventBytes    = 1 << 20
	maxWatchers      = 64
	watchBuffer      = 256
)

// Rhythm of the event stream: a watcher takes silence of livenessTimeout for a dead engine.
const (
	heartbeatEvery  = 10 * time.Second
	livenessTimeout = 3 * heartbeatEvery
	writeTimeout    = 10 * time.Second
)

// versionHeader is in every answer, so that a client knows that it talks to an engine, and which.
const versionHeader = "Tagalong-Api"

// statusOf maps a code to the HTTP status of its answer. Clients go by the code in the body;
// the status is for people with curl.
func statusOf(c Code) int {
	switch c {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeNotFound:
		return http.StatusNotFound
	case CodeConflict, CodeElsewhere, CodeBusy, CodeCancelled, CodeEngineRunning:
		return http.StatusConflict
	case CodeRefused:
		return http.StatusForbidden
	case CodeUnreachable:
		return http.StatusBadGateway
	case CodeNoEngine, CodeNoHypervisor:
		return http.StatusServiceUnavailable
	case CodeSpace:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// wireError is err as it goes to the client.
func wireError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return &Error{Code: CodeCancelled, Sentence: "Cancelled.", Cause: err.Error()}
	default:
		return AsError(err)
	}
}

// needName refuses an empty name before it can be taken for "any".
func needName(name string) error {
	if name == "" {
		return &Error{Code: CodeUsage, Sentence: "A name is missing.", Next: "Say which one you mean."}
	}
	return nil
}
