// Package wire frames the messages that Tagalong's protocols exchange over an
// already authenticated and encrypted stream.
//
// A frame is a 4-byte big-endian length and that many bytes. Nothing is
// allocated before the length has been checked against the reader's limit. On
// top of frames there are JSON messages (Conn, at most MaxMessage bytes each),
// raw blobs in pieces (for what outgrows one message), and a greeting in which
// both ends agree on a protocol's version.
//
// Guaranteed: no input makes a reader panic or take more memory than its
// limit; every message is written within a time limit; a Recv that is cancelled
// between two messages leaves the connection usable, one that is cancelled
// within a message breaks it for good.
//
// Not guaranteed: secrecy, authenticity and integrity, which are the stream's;
// and delivery, for which a protocol needs its own acknowledgements.
//
// To test: go test -race ./p2p/wire/... ; go test -fuzz=FuzzReadFrame ./p2p/wire
package wire
