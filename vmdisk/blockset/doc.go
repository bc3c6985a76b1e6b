// Package blockset keeps sets of a disk's blocks: what a peer lacks, what a layer has.
//
// A Set is cut into chunks of 32768 blocks (128 MiB of disk). A chunk that is empty or full takes 8 bytes, any other at most 4 KiB:
// at most 32 MiB for each TiB of disk, usually far less. Clones and unions share chunks until one of the sets changes.
//
// Sets of a Pool take less together: what was not changed for long is packed (a random tenth of the blocks to half), and sets
// that change alike (AddAll) or have become equal (Share) have their chunks in common. Three peers of a disk of 1 TiB that lack
// a random tenth each take 27 MiB if it is the same for all, 60 MiB if it isn't, with 20 MiB of the pool at hand.
//
// A set, and a pool with all its sets, is for one goroutine at a time; clones may be used beside them.
//
// AppendTo and Decode are the form in which sets are stored and sent; vmdisk/FORMAT.md describes it. Decode takes bytes from
// anywhere: it never panics, and its memory is bounded by the size of the disk.
//
// Tests: go test ./vmdisk/blockset (against a plain slice of bools; FuzzSet).
package blockset
