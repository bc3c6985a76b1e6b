// Package flow says how a link is used well by one stream that sends much: how much of it may be on its way at once ([Window]), and how hard it is
// compressed, and on how many cores at once, each a lane ([Compressor]). All go by what is measured while it goes on: the link's rate and trip by the receiver's
// acknowledgements, this computer's and this content's ways with a level by what it has done so far. Package push goes by it, in one lane, and handoff's memory stream.
//
// One connection carries what the lanes make. On one core of an EPYC server a lane compresses 156 MB a second of a system's files to 40 %, expanding does 637 MB of
// what comes out, and an end of an encrypted connection between two devices takes half a second of a core's for each GB: the four lanes that there are at most
// keep who expands busy, and a sixth of a core with one connection. A second connection could only help where more than that leaves as it is, faster than 10 Gbit/s.
//
// It guarantees: a window never holds more than a small multiple of what the link does, so who else uses it doesn't wait behind megabytes; what comes
// from a peer takes no more memory than was said before. Nothing here reads or writes, has goroutines, or looks at a clock but to see how long compressing took.
//
// To test: go test ./p2p/flow
package flow
