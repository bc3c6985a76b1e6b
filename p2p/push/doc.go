// Package push brings one cut of a disk to a receiver whose replica is whole at an older position, or that has none yet, over a slow link
// and for few bytes: protocol Protocol, one stream a push, opened by who has the cut (the owner, or a site's postmaster). Who pushes what to
// whom, and when, is the engine's (package app/postal).
//
//	sender                                  receiver
//	Hello{version, VM, disk, size, term, cut} ─▶
//	                                        ◀─ State{complete, position, copy, checkpoint} | Refusal{code, text}
//	                                        ◀─ Held(index?, runs)
//	Begin(copy, from, key) ─▶
//	Data │ Zero │ Ask … ─▶
//	                                        ◀─ Need … │ Ack …
//	Commit ─▶
//	                                        ◀─ Done
//	end of stream ─▶                        ◀─ end of stream; or at any time Fail(code, text)
//
// Hello and State are JSON in wire frames (package replica). Afterwards a frame is a type byte and what follows; uN are big-endian, uv is an
// unsigned varint (encoding/binary), a region is 4 MiB of the disk, a block 4 KiB:
//
//	0x01 Begin   16 bytes copy ID, u64 term and u64 barrier of from, 32 bytes key of the sums
//	0x02 Data    u8 codec (0 raw, 1 one zstd frame), uv region, set, uv length, so many bytes: the content of the set's blocks (1 … 64), in order
//	0x03 Zero    uv first block of the disk, uv blocks
//	0x04 Ask     u8 kind, uv region, set, sums: does the receiver have these blocks?
//	0x05 Commit  there is nothing more: be the cut
//	0x80 Held    u8 flags (1: the receiver has an index), uv runs (≤ 65536), then of each uv blocks since the one before, uv blocks
//	0x81 Ack     uv bytes of the stream that came since Hello, uv how many of them aren't dealt with durably
//	0x82 Need    uv region, set: the blocks of the oldest open Ask that the receiver doesn't have
//	0x83 Done    the replica is the cut, durably
//	0x84 Fail    u16 code, u16 length, UTF-8 (≤ 1024 bytes)
//
// A set, of blocks of a region, is a form byte and: 0 all blocks, nothing follows; 1 a bitmap, as 16 little-endian u64, the lowest bit first; 2 u8
// number of runs, then of each uv blocks since the one before, uv blocks less one.
//
// Kinds of Ask: 1 a sum for each block; 2 one for every 16 blocks of the set, in order; 3 one for the whole set: 16 bytes of BLAKE3 keyed with the
// Begin's key, which is random for each stream, so that nobody can prepare blocks that collide. 4 a sum for each block: all 32 bytes of plain BLAKE3,
// as an index has them; the receiver takes such a block from wherever it has it. The answer to 2 and 3 has all blocks of a sum or none.
//
// # What is sent
//
// What the Source says may differ (Source.Next), and what Held says: blocks that an unfinished copy brought, be it of this cut or an earlier
// one, from this sender or another. These are made sure of by sums, so that nobody needs to remember anything: a push that was cut short goes on at the next
// block, a newer cut supersedes an unfinished one without sending again what is equal in both, and the next postmaster goes on where one died. Held may
// say too much: that costs sums.
//
// Of these blocks zeros go as runs (not at all where the receiver has nothing but zeros), holes of 64 KiB and more aren't read; others are asked about first if the sums cost
// less than the content that they are likely to save (asking, in rules.go; what is likely is learned from the answers), by the region and by
// 64 KiB before block by block where few will differ; the rest is sent in batches of at most 64 blocks of a region, compressed at the level that gets
// most content through the link as measured (package flow), or raw. With exact dirty sets and fresh content hardly anything is asked. Regions go in
// the order of Heat, the coldest first; questions don't wait for their answers, so a long way costs two round trips in all.
//
// No more is on its way than keeps the link full (package flow), so that who fetches a block meanwhile doesn't wait behind megabytes.
// Both ends can hold it to a Pace; the receiver does by acknowledging late.
// The receiver makes durable what came after each second, if that is 1 MiB at least (checkpointDue); what is acknowledged as durable the Source may
// forget (Source.Done).
//
// # Guarantees
//
// The receiver's disk is what it was until Commit, and then the cut, in one step (Sink.Begin, Sink.Barrier); if it wasn't whole, it is so from then on.
// A push lands only on the very position that it was made for (from), and only a newer cut does. A copy that another protocol began isn't gone on
// with, as its sender counts on its own writes: copies of this one have names that begin with "push". After a cut line nothing that came is sent again; after a
// power cut of the receiver, at most what a second brought, or 1 MiB, whichever is more. A peer that lies harms its own replica, or gets the
// stream ended; memory is bounded: about 6 MiB an end, besides 8 bytes for each region that is to be sent and 16 bytes for each run held.
//
// Not guaranteed: that the Source knows what the receiver lacks: what Next leaves out, and Held too, is never sent nor compared. Nor that the cut is of the
// history that the receiver's disk is of, or that the sender may push at all: open, at both ends, must see to that. Nothing is sent of the position of
// writes within the cut: a replica is at cuts only.
//
// To test: go test -race ./p2p/push ; go test -fuzz=FuzzReceive ./p2p/push ; with real disks: go test -run TestPush ./app
package push
