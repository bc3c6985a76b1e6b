// Package fetch brings the blocks that an owner lacks after a switch from the devices that hold them: protocol Protocol, two streams
// a holder, opened by the asker, one for what somebody waits for and one for the background. A Pool is the asker's end for
// several holders at once (package holders makes it a source for vmdisk's Store.Hydrate), Serve is a holder's end of one stream.
//
//	asker                                   holder
//	Hello{version, VM, disk, size, term, at} ─▶
//	                                        ◀─ State{complete, position, …} | Refusal{code, text}
//	Want(id, offset, length) │ Ping(id) … ─▶
//	                                        ◀─ Data(id, length) │ Zero(id, length) │ Sorry(id, code) │ Pong(id) …
//	end of stream ─▶                        ◀─ end of stream
//
// Hello and the answer are JSON in wire frames (package replica). Afterwards a frame is a type byte and a fixed big-endian header:
//
//	0x01 Want   u32 id, u64 offset, u32 length   4 KiB … 256 KiB, whole blocks; ids of open questions differ
//	0x02 Ping   u32 id
//	0x81 Data   u32 id, u32 length, then content  the next length bytes of what was wanted
//	0x82 Zero   u32 id, u32 length                the next length bytes are zeros
//	0x83 Sorry  u32 id, u16 code                  no (more) answer: 1 it lacks that itself, 2 it can't read that, 3 it can't read
//	                                              at this position any more: the stream is of no use
//	0x84 Pong   u32 id
//
// Questions are asked without waiting for answers, and are answered in any order; of one answer the parts come in order. Content isn't
// compressed: what is fetched is wanted now, on links that are mostly as fast as compression.
//
// # Whose answer is true
//
// The asker is the owner of the term after a hand-off at position P (Hello.At). A block is stale in it if the asker neither had it as it was at
// P, nor fetched it, nor wrote it. What may it take for such a block X?
//
//   - From a holder at Q = P: what it has, for it is the disk at P.
//   - From a holder at Q < P, if nothing wrote X after Q and up to P. The giver's exported sets say so: they name, for each device and the
//     position that it acknowledged, every block that was written since, or more (vmdisk.Store.ExportDirty; through crashes too, by
//     the activity log). So the set goes with exactly that position, and Judge compares it with the one that the holder says. A holder that
//     acknowledged one position and is at a later one before P would do as well, but then it isn't known whether its history is ours.
//   - From a holder at Q > P: what it has, if Q is in the asker's history. What was written between P and Q was then written by the asker
//     (one owner a term; an owner that lacks blocks can neither give its term away nor feed a replica). A position is named only after
//     all writes before it are durable at the owner, so none of these blocks is stale in the asker any more, nor is it after a crash of the asker, which
//     loses only what no position covers. X is stale; so it wasn't written; so it is as it was at P.
//   - Numbers alone don't say whether Q is in the asker's history: after a takeover two owners may count on from one position. Judge must ask
//     who knows (the directory, or what the replica acknowledged to this history's owners). A holder refuses an asker whose term is older
//     than its own, or, where it knows its history, whose position that doesn't have (RefuseHistory).
//
// The holder may crash at any moment: an answer counts only when it is there as a whole, a new stream begins with a new State, and a replica
// comes back at a position, never between two. A holder that is being written (a mirror, a copy) answers from a cut at the State's position, or
// says Sorry(3) when it has lost the cut. A holder that lacks the block itself (its own stale set) says Sorry(1). So a holder's answers
// are of one position, and both streams of a link must be at the same.
//
// The asker may write X, or crash, while the answer is on its way. A write wins: the Hydrator throws the answer away if X isn't stale any more when
// it comes, and what was written lies above what was fetched in the disk. An asker that comes back fetches what is still stale from new streams.
// If the asker goes back to what it had (Rollback), it closes the Pool; nothing of it is left.
//
// # Guarantees
//
//   - Fetch fills its buffer from one or several holders; one that vanishes, is silent, refuses or sends nonsense is followed by the next one, and
//     the caller doesn't notice. If none is left the error is passing.
//   - Nearest first: a demand goes to who is expected to answer first (round trip, what it has to do, how long it has been silent). If
//     the answer takes three times as long as usual another one is asked too, and the first answer counts. The background does that as well, later.
//   - The background is spread over all holders, in proportion to what each can carry. On its way from each is what fills the path and
//     some 20 ms more: what waits in a path's buffers delays the demands behind it. While there are demands that nobody foresaw it is half a round
//     trip more, but 2 … 20 ms; who reads on in sequence, and has come up with what is on its way to him, is no reason. Answers that come late
//     now and then are a busy computer's: only when all do for 100 ms there is too much on its way. Room says how much it may be in all, and in
//     what pieces; it adapts from 16 KiB to 64 MiB a holder.
//   - What was begun in the background and becomes urgent is a demand from then on: it doesn't wait for its turn any more, nor for a rate; nothing is asked
//     for again that is on its way, unless it is late by what a demand takes.
//   - Pulling is only from whom it is allowed (Allow), as fast as that is allowed; demands and what follows them don't ask.
//   - Both ends check every number. A peer that breaks the protocol ends its own link, which is tried again after 0.1 … 5 s; one that
//     doesn't answer for a minute too.
//   - Memory: an asker has 600 KiB a holder and its buffers, a holder 1.1 MiB a stream, whatever is asked or sent; an asker with late answers 256 KiB for each.
//
// Not guaranteed: that the content is right. A holder is one of the person's own devices; what it lies, or what its drive gives it, is believed.
// (Streams are authenticated and encrypted; vmdisk's scrub compares replicas afterwards.)
//
// To test: go test -race ./p2p/fetch ; go test -fuzz=FuzzServe ./p2p/fetch ; go test -fuzz=FuzzAsk ./p2p/fetch ; go test -bench . ./p2p/fetch
package fetch
