// Package api is the only door to a running engine: the words that the engine and its faces
// (tray, command line, tests, scripts) share, a server that puts an Engine behind a private Unix
// socket, and a client that is an Engine again on the other side.
//
// The protocol is HTTP with JSON bodies. Everything lies under /v1/; the number is [Version].
// A failure is an [Error] as JSON, whatever the status line says. Events are a stream of JSON
// objects, one a line; an empty line is a sign of life.
//
// It guarantees that only the user who runs the engine can open the socket (mode 0600, in a
// directory of mode 0700 that belongs to that user, checked from both ends), that neither side
// reads or keeps more than a fixed amount whatever the other sends, that a watcher which doesn't
// read is cut off and never slows the engine, and that every failure a client returns is an *Error
// with a sentence for the person.
//
// It doesn't guarantee that a watcher sees every event: those the engine no longer keeps are
// skipped. [Status] is the truth, an event says that it is time to read it again. Nor does it
// protect one user from programs of the same user.
//
// Test it with go test -race; the tests run a fake engine on a real socket.
package api
