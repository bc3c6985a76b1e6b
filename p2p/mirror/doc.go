// Package mirror replicates one disk from its owner to one replica, every
// write, in order, as it happens: protocol Protocol, one stream a disk and peer,
// opened by the owner. Catching up, first copies and live writes share the
// stream; what is sent when is the owner's Source's business.
//
//	owner                                   replica
//	Hello{version, VM, disk, size, term} ─▶
//	                                     ◀─ State{complete, position, copy, checkpoint} | Refusal{code, text}
//	Begin │ Write │ Zero │ Checkpoint │ Barrier … ─▶
//	                                     ◀─ Ack(position) … │ Fail(code, text)
//
// Hello and the answer are JSON in wire frames (package replica). Afterwards a frame is a type
// byte and a fixed big-endian header:
//
//	0x01 Begin       16 bytes copy ID          a copy starts, or goes on. To a whole replica
//	                                           it stays invisible until the next Barrier,
//	                                           and what came since the last one is dropped
//	0x02 Write       u64 offset, u32 length, then the data (4 KiB … 1 MiB)
//	0x03 Zero        u64 offset, u64 length
//	0x04 Checkpoint  u64 term, u64 barrier     make durable; the copy can resume here
//	0x05 Barrier     u64 term, u64 barrier     make durable; the replica is the disk at this position
//	0x81 Ack         u64 term, u64 barrier     durable up to and including this one
//	0x82 Fail        u16 code, u16 length, then UTF-8 text (≤ 1024 bytes)
//	0x83 Working     the replica stores what came before, and takes the copy that
//	                 begins when it has (every 5 s)
//
// Guaranteed: the Sink sees the Source's operations in their order; an Ack is
// written only after the Sink returned from the Barrier or Checkpoint it names;
// a small write is batched with its neighbours but never held back waiting for
// more; both ends check offsets, alignment, terms and the order of positions,
// so a peer gone mad (or our own bug) ends the stream instead of reaching the
// disk; memory is bounded (a few MiB a stream); a buffer is released as soon as
// it has been copied for sending, or, if it is long, sent: one buffer serves all
// peers. A replica whose Sink must store what came before says so for as long
// as that takes (Working), and the owner waits with it: nothing is sent twice.
//
// Not guaranteed: that what was sent arrives. What was not acknowledged must
// be counted as missing at the replica.
//
// To test: go test -race ./p2p/mirror ; go test -fuzz=FuzzReceive ./p2p/mirror
package mirror
