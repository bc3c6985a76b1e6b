// Package compare finds out in which blocks a replica differs from its owner's disk, without moving the disk: protocol Protocol, one
// stream a comparison, opened by the owner.
//
//	owner                                   replica
//	Hello{version, VM, disk, size, term, key} ─▶
//	                                        ◀─ State{complete, position, copy, checkpoint} | Refusal{code, text}
//	Regions(first, count) … ─▶
//	                                        ◀─ Zeros(count) │ Sum …   for each region, in order
//	Leaves(first, count) … ─▶
//	                                        ◀─ Zeros(count) │ Middle … for each region, in order
//	Part(region, leaves) … ─▶
//	                                        ◀─ Tags …  for each of these questions, in order
//	… or else Blocks(first, count) … ─▶
//	                                        ◀─ Zeros(count) │ Tags …  for each region, in order
//	end of stream ─▶                        ◀─ end of stream, or at any time Fail(text)
//
// The replica is whole, at its position, or it is what one that isn't whole has to offer: then the copy is that content's name.
//
// Hello and the answer are JSON in wire frames (package replica). Afterwards a frame is a type byte and, big-endian:
//
//	0x01 Regions  u32 first, u32 count   which regions (4 MiB each) are wanted
//	0x02 Blocks   u32 first, u32 count   of which regions the single blocks are wanted
//	0x03 Leaves   u32 first, u32 count   of which regions the leaves (64 KiB each) are wanted; not in version 1, nor is
//	0x04 Part     u32 region, u64 mask   of which leaves of a region the single blocks are wanted, the lowest bit first
//	0x81 Zeros    u32 count              the next regions of what is wanted are all zeros
//	0x82 Sum      16 bytes               the sum of the next region
//	0x83 Tags     128 bytes, 16 bytes …  of the next region: a bit for each block that isn't all zeros, the lowest first, and the tag
//	                                     of each of these
//	0x84 Fail     u16 length, UTF-8      the replica can't go on (≤ 1024 bytes)
//	0x85 Middle   u64 mask, 16 bytes …   of the next region: which of its leaves aren't all zeros, and the sum of each of these
//
// Sums and tags are the first 16 bytes of BLAKE3 keyed with the Hello's key, which is random for each stream: nobody can prepare blocks
// that collide. A tag is that of a block. A sum is that of the region's, or the leaf's, runs of blocks that aren't zeros, each as u32 first block of the region, u32 number of
// blocks, content; so zeros cost no hashing, and holes aren't even read.
//
// The owner wants all it doesn't know first by regions, then, of a window of those that differ (256), by leaves, then, of the leaves that differ, by
// blocks: of 1 % of the blocks, scattered, that costs 9 % of what changed, without leaves 39 %. Where almost all leaves of a window differ, the next windows go
// without them. It doesn't wait for an answer before it asks on (at most maxAsked questions are open, each of as many regions as it likes), so a
// long way costs three round trips for the first window, and two for each other.
//
// Guaranteed: what is told to be Equal was equal when it was read, if the peer doesn't lie; a peer that lies harms its own replica only.
// Both ends check every number; memory is bounded (about 4 MiB a stream). A comparison that is cut short leaves what it told.
//
// Not guaranteed: that either disk stays as it was read. Who writes the owner's disk, and who moves the replica, must see to that
// (vmdisk.Comparison, vmdisk.Cut).
//
// To test: go test -race ./p2p/compare ; go test -fuzz=FuzzServe ./p2p/compare
package compare
