// Package fsx tortures a real disk through its NBD socket, as fsx does with file systems, and has nothing but tests.
//
// Requests of all kinds, sizes and alignments overlap each other on several connections. Meanwhile cuts are opened and read,
// connections are torn, the disk is fenced, closed and opened again, and what wasn't answered is sent again, as QEMU does. The
// model is a shadow of the disk and the requests since it was last known, with the times between which each was carried out:
//
//   - a read is, byte by byte, what was there before or what a write brought that may have happened, and nothing that was
//     overwritten before the read began; what is said to be a hole reads as zeros;
//   - where writes overlapped, one of them won, as a whole: a disk at rest is some order of them;
//   - a cut is the disk at one moment while it was taken: if it has one write it has all that had ended before that began;
//   - what may not be answered with success gets its error, and changes nothing.
//
// Every other seed does it to a volume of many extents, and so to several stretches of a larger disk.
//
// A failure says the seed and the last requests that touched the place. Run one again with
// go test ./app/disknbd/fsx -fsx.seed N [-fsx.ops N] [-fsx.depth 1]; at depth 1 on one connection all comes in the same order.
package fsx
