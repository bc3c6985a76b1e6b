// Package disktool is what `tagalong disk` does without an engine: makes a disk, tells what there is to know of
// one, serves it.
//
// It guarantees that the disk's own fence holds: it activates only the term that this device has and has not given
// away, or the first of a new disk. What another device owns, or what would tear a saved memory from its
// disk, is only read. Failures are *api.Error: a sentence, the next step and the cause.
//
// It doesn't talk to an engine. A disk that one has open is refused with api.CodeBusy; the caller asks the engine
// then.
//
// Test it with go test; qemu-utils and libnbd-bin must be there.
package disktool
