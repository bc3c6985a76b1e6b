// Package blockset keeps sets of a disk's blocks: what a peer lacks, what a layer has.
//
// A Set is cut into chunks of 32768 blocks (128 MiB of disk). A chunk that is empty or full takes 8 bytes, any other 4 KiB:
// at most 32 MiB for each TiB of disk, usually far less. Nothing here is safe for concurrent use.
//
// AppendTo and Decode are the form in which sets are stored and sent; vmdisk/FORMAT.md describes it. Decode takes bytes from
// anywhere: it never panics, and its memory is bounded by the size of the disk.
//
// Tests: go test ./vmdisk/blockset (against a plain slice of bools; FuzzSet).
package blockset
