// Package verify finds out whether replicas are what their owner's disk is, while the guest goes on, finds which copy of a damaged place is
// right, and has it repaired: protocol Protocol, one stream a replica, opened by the owner.
//
//	owner                                   replica
//	Hello{version, VM, disk, size, term, key} ─▶
//	                                        ◀─ State{complete, position, …} | Refusal{code, text}
//	Span(i) ─▶                              ◀─ Working … Sums(1)
//	Regions(i) ─▶                           ◀─ Sums(≤ 64)
//	Leaves(r) ─▶                            ◀─ Sums(≤ 64)
//	Leaf(l) ─▶                              ◀─ Leaf{position, record, sum}
//	Masked(r, 64 masks) ─▶                  ◀─ Sums(≤ 64)
//	Part(l, mask) ─▶                        ◀─ Leaf{position, record, sum}
//	Patch(l, mask, position, content) ─▶    ◀─ Leaf{position, record, sum}
//	… end of stream ─▶                      ◀─ end of stream, or at any time Fail(text)
//
// Hello and the answer are JSON in wire frames (package replica). Afterwards a frame is a type byte and, big-endian:
//
//	0x01 Span     u32   read a span (256 MiB), and tell the sum of it
//	0x02 Regions  u32   the sums of the regions (4 MiB) of the span that was read last
//	0x03 Leaves   u32   the sums of the leaves (64 KiB) of a region of that span
//	0x04 Leaf     u32   read this leaf now
//	0x05 Part     u32, u16 mask   read this leaf at one position, and leave those blocks out of its sum: they count as zeros, the lowest bit first
//	0x06 Masked   u32, 64 × u16   read a region, and tell the sums of its leaves without those blocks
//	0x07 Patch    u32, u16 mask, u64 term, u64 barrier, u8 flags (1: the replica's own record is doubted), content of the leaf's blocks that the mask
//	              doesn't have: put it there, if the replica is at that position; then as Part
//	0x81 Sums     u16 count, 16 bytes …
//	0x82 Leaf     u64 term, u64 barrier, u8 record, 16 bytes   the replica's position before it read, and what its own record says (Record) of
//	              all of the leaf
//	0x83 Working  the answer takes a while (every 5 s)
//	0x84 Fail     u16 length, UTF-8 (≤ 1024 bytes)
//
// Disks are compared by a tree with the fan-out 64: the sum of a leaf is the first 16 bytes of BLAKE3 of its content, keyed with the Hello's key, which is
// random for each round; that of a region or a span is the same of the sums below it. A sum of zeros stands for a leaf that can't be read. Keyed, so that a
// replica can't tell a sum without having the content, nor prepare any that collides. The owner descends where sums differ only; the
// replica keeps the sums of one span (70 KiB) and reads nothing twice for that. Version 1 has no 0x05 to 0x07.
//
// # No false report, and no miss
//
// Neither disk stands still meanwhile, so a leaf that differs at first is only suspected. It is then compared again under a Look: from a moment on
// the owner notes what is written; it waits until the replica has acknowledged what the leaf was at that moment; both read it; and if the owner's
// leaf wasn't written until after that, both had it at one position and what was read must be alike. If it was written, that comes again,
// a few times, and then the leaf counts as busy, and as not compared. So a write under way is never reported; and of a leaf that nobody
// writes, every difference is: it makes its leaf's sum differ, and those above, and nothing puts off its confirmation.
//
// # Copies that stand still
//
// A copy at another site gets cuts, one behind or one whose device was away nothing at all, and while the owner's disk hydrates none is fed. Such a copy
// stands at a position, and the owner knows what it lacks there (Lag): all else must be what the owner's disk has, unless that was written since the
// look began. So it is compared without that, block by block, and read at one position (Pinned); if that isn't where the owner believes it to be,
// because a push has come meanwhile, the owner is told and the leaf comes again. Nothing moves such a copy but damage that is repaired: content for that
// very position (Patch), which the replica takes if it is there, and if its own record doesn't speak for what it has. Only a copy that is suspected is
// asked, or all when another one, or the owner's disk, is found to be damaged: those afar cost 24 bytes for 256 MiB that are equal, 1.2 KiB for 4 MiB in
// which they lack something, and a leaf (64 KiB at most) where they are damaged.
//
// # Whose copy is right
//
// A disk keeps hashes of what was quiet when they were recorded (vmdisk.Store.Recorded): a record holds only while nobody has written there
// since. Package judge.go says who is right, in this order; nothing else is ever changed:
//
//  1. The owner's own record says that its leaf isn't what it was (or it can't be read, and there is a record): the leaf is mended with
//     content that has the recorded hash, from whoever has it. If nobody has it, that is told and nothing is changed, also not the copies.
//  2. A copy that can't be read, or whose own record says that it isn't what it was, gets the leaf again: the owner marks it as
//     lacking, so it comes in order with all other writes; one that stands still is patched.
//  3. A record that matches on one side only: that side is right. If it is the owner's, the copy gets the leaf again. If it is the copy's, it
//     is told and nothing is changed: the guest has seen the owner's disk all the time, and what would say that its block is bad is another device.
//     The same where another copy's record speaks for what the owner has, and the owner's own doesn't: damage of the owner's disk that a copy was
//     made of has a record there, too, and must not go on to those that are well.
//  4. Records on both sides or on none: the majority of all copies, the owner's disk included, if that is the owner's side; there must be a third,
//     compared in all that this one was.
//  5. Otherwise nobody knows: both are left as they are and told, and the person may decide for what the guest sees (Options.Overwrite).
//
// So the owner's disk changes only to what its own record says, and a replica only to what the owner's disk is.
//
// Guaranteed: memory is bounded (about 1 MiB a round and 100 KiB a replica, and the findings, at most MaxFindings); what peers send is checked. A
// peer that lies of its own copy gets blocks again, or has itself reported: it harms itself only. One that lies to be the third of rule 4 can at
// most have another replica made what the owner's disk is, which is what every mirrored write does.
//
// Not guaranteed: that what is read is what lies on the platter (the kernel may have it in memory); that a record which was made after
// the damage is right. Layers that wait to be merged are compared as a part of the disk, but records don't count for them. Where a copy lacks a block it
// isn't compared; damage there goes when it gets it.
//
// To test: go test -race ./p2p/verify ; go test -fuzz=FuzzServe ./p2p/verify ; go test -fuzz=FuzzSession ./p2p/verify
package verify
