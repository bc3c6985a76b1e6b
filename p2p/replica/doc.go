// Package replica is how an owner begins to speak about a disk with a device that has a replica of it, and how the two end: what the
// protocols mirror, compare and fetch, each on streams of their own that the owner opens, have in common.
//
//	owner                                   replica
//	hello{version, VM, disk, size, term, …} ─▶
//	                                        ◀─ State{complete, position, copy, checkpoint} | Refusal{code, text}
//
// Both are JSON in wire frames. What follows is the protocol's.
//
// Guaranteed: either end is waited for 30 s at most; an owner that is refused learns why, also when the stream is reset after that. Not guaranteed: that
// the state is true; who uses it must see to it that a lie harms the liar's replica only.
//
// To test: go test -race ./p2p/replica ./p2p/mirror ./p2p/compare ./p2p/fetch
package replica
