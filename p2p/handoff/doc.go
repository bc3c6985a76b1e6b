// Package handoff carries the words of a hand-off between giver and taker, and
// the stream of the guest's memory. Who says what when, and what it means, is
// the directory's state machine's business (the baton); here is only the
// vocabulary and its transport.
//
// The control stream (Protocol) is a wire.Conn. After the greeting each message
// is a JSON envelope
//
//	{"v":1, "type":"offer", "vm":"…", "attempt":"…", "body":{…}, "blob":n}
//
// followed by n bytes of blob if n is not zero (only "transfer" has one: the
// dirty sets, which outgrow a message). Types are the constants Type…. An
// unknown type is ErrUnknownType, naming it, and leaves the connection usable;
// unknown fields are ignored.
//
// The memory stream (MemoryProtocol) starts with one JSON header in a wire
// frame, then carries the hypervisor's migration stream in both directions
// (the return path): as it is if the header's version is 1, which is all that a
// taker understands whose Facts name no other; or in frames, a type byte and what
// follows, uv being unsigned varints:
//
//	0x01 Data   u8 codec (0 raw, 1 one zstd frame), uv bytes of content (1 … 256 KiB), uv length, so many bytes
//	0x02 Ack    uv bytes of the stream that came since the header, uv bytes of content that the hypervisor was given; only from the taker
//	0x03 End    this direction has ended; the stream's own end follows the giver's
//
// The giver compresses as the link and this computer make it worth while, and keeps no more on its way than the link holds (package flow): what
// has left its hypervisor has nearly arrived, over whatever link. Where one core compresses less than the link carries, and the guests leave others, several do, each
// its frame; frames leave in order, so the taker notices nothing of it, and expands on one. One stream carries it: several connections of the hypervisor's
// (multifd) were tried, and took longer on few cores (its threads wait for each other at each pass), what a stream lacks on a long way is window, which it
// has, and a core encrypts more than several compress (package flow has the figures).
// Pipe joins a Memory to the hypervisor's socket, with a Gate by
// which the engine parks, trickles and opens the flow; the gate counts the hypervisor's bytes, or what they stand for, never those on the wire.
//
// A giver whose taker lacks blocks tells it so on a third stream (SetsProtocol) before the rest of the memory leaves: a header with version,
// attempt, position, length and BLAKE3, then the sets, at most MaxDirty bytes; the taker answers once they are durable.
//
// Guaranteed: bounded memory and no panic whatever a peer sends; a Pipe whose
// gate is released for good never holds a byte back, and ends when both
// directions ended or either failed.
//
// Not guaranteed: delivery. The state machine repeats what matters.
//
// To test: go test -race ./p2p/handoff ; go test -fuzz=FuzzRecv ./p2p/handoff
package handoff
