// Package vmdisk keeps one virtual disk on this device: as its owner, who writes it and tells the
// peers what changed, or as a replica, which follows its owner.
//
// A disk is a directory: base.raw (plain, sparse, bootable without us), a journal (fence, terms,
// barrier numbers, activity log), an epoch log (of a replica), layers (blocks that are newer than those in base.raw,
// until they are merged into it), recorded hashes and one dirty set per peer. FORMAT.md
// has every byte.
//
// What it guarantees:
//   - A write or flush that returned nil survives the death of the process; one that was flushed (or
//     FUA) survives a power cut.
//   - Only an activated disk is written. A term that was given away (Give) is never written under
//     again, nor is a lower one, also after a restart.
//   - A complete replica equals its owner's disk at exactly the position that it reports: never a
//     mixture, whenever the power is cut. A position is acknowledged only when it is durable.
//   - The owner knows, for each peer, a superset of the blocks that the peer lacks: through crashes, lost
//     connections and hand-offs. Where it can't know it copies everything, or what a comparison leaves.
//   - A peer that can't keep up is behind: what is written costs a bit, and it gets what it lacks, as blocks, and a barrier whenever little is
//     left. However much and wherever the guest writes, it gets on: what one pass over it leaves comes from cuts, at whose barriers it is. It is fed every write again when it has everything or has kept up for a while (standing), so that it doesn't go back and
//     forth. How much a peer lacks, and how old that is at most, can be asked at any time (Progress).
//   - The guest never waits for a peer. Memory is bounded: a queue per peer (Options.QueueBytes) and
//     sets of blocks (package blockset: at most 32 MiB a TiB and peer, and for three peers of 1 TiB that lack a random tenth
//     less than 64 MiB together; the set of one peer is in memory once more while it is stored).
//   - Reading, writing, zeroing and trimming take no memory of their own, and Store.mu only to note what was written.
//   - A Cut is the disk at one barrier for as long as it is open, whatever is written meanwhile. If what it needs can't be kept, the cut
//     is lost and says so; the guest's writes never fail because of it.
//   - A replica that lacks blocks can be the owner's disk (SetStale, Hydrate): each block is the guest's last write or what the
//     owner before had, never older, through crashes; a read waits for its blocks only. Until it is whole it can go back, in
//     one step, to what it was (Rollback).
//   - A catch-up that is cut short goes on where its last checkpoint was, whichever end crashed. Until its barrier it is invisible.
//   - A replica with writes that the owner's history lacks is never overwritten (ErrDiverged), unless both were compared (Compare) while it was
//     at the very position that it has: whoever compares must have asked. A disk that follows an owner forgets the history that it had: a branch
//     that was given up is never taken for the one that goes on. Then, and whenever else it isn't known what a whole replica
//     lacks, only the blocks that differ are sent.
//   - A replica that isn't whole may be filled with anything (Seed), and what it holds can be compared too (Offer): only the rest is sent. It is no
//     replica of any position before the barrier that makes it whole. What was found out about it holds for what was found durable under one name, which a
//     first write takes away.
//   - What a Look finds to differ between an owner's disk and a replica is damage, never a write under way; a damaged replica gets its blocks
//     again (Resend) in order with all else.
//   - A disk can be made larger (Resize), in one step, while it is used. What it holds is a function of its position alone, zeros beyond its end: to
//     grow changes no position, and nobody lacks anything then.
//   - A term is renewed (Renew), and a disk cloned (Clone), in one step: after a crash it was done or it wasn't.
//   - What can't be read or written goes to the caller as the system's error, and the disk is marked (Info.NeedsCheck) until a
//     check was clean. Content that isn't what it was when its hash was recorded is found (Scrub, Check), not before.
//   - What has been quiet for some minutes gets hashes by itself (Options.Record), on owners and replicas; a write, a flush or a barrier does nothing
//     for it. What rots before that, or beside a write in the same 4 MiB before they are quiet again, is recorded as it is then: no record is ever
//     of anything but what base.raw had, and none holds once that was changed by anybody.
//   - A directory that isn't a disk of a version that this program knows is refused, and left as it is.
//
// What it doesn't: it doesn't decide who is the owner (the directory does; this package enforces), it
// doesn't move bytes between devices (a Feed is pulled, an Applier is pushed, by whoever has the
// connection), and it doesn't repair flipped bits in base.raw.
//
// A failed fdatasync is final: the kernel may have dropped what it couldn't store, so the disk
// refuses everything with ErrFailed until it is opened again, and then counts all recently written regions
// as dirty.
//
// Lock order, outermost first: Store.scrubMu, Store.role, Applier.mu, Store.saveMu, Store.syncMu, Store.gate, claims, Store.rd,
// hashes.mu, activity.mu, Store.mu, journal.syncMu, journal.mu. Cut.io comes after Store.rd, Cut.mu after Store.mu and Cut.io.
// No file is read or written under Store.mu or Cut.mu.
//
// Tests: go test -race ./vmdisk/... ; the seeds of the model tests are printed when they fail.
package vmdisk
