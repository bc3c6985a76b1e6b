// Package flow says how a link is used well by one stream that sends much: how much of it may be on its way at once ([Window]), and how hard it is
// compressed ([Compressor]). Both go by what is measured while it goes on: the link's rate and trip by the receiver's acknowledgements, this computer's and this
// content's ways with a level by what it has done so far. Package push goes by it, and handoff's memory stream.
//
// It guarantees: a window never holds more than a small multiple of what the link does, so who else uses it doesn't wait behind megabytes; what comes
// from a peer takes no more memory than was said before. Nothing here reads or writes, has goroutines, or looks at a clock but to see how long compressing took.
//
// To test: go test ./p2p/flow
package flow
