// Package holdpoint names the steps of a switch at which a test may stop an engine, to hurt what it is about while it is there: the last of
// them pass in milliseconds, and no signal from outside would hit them.
//
// The product is built without the tag tagalonghold: then At is empty, and nothing of this is in the binary. Built with it, an engine whose
// environment has TAGALONG_HOLD, the path of a Unix socket, connects there at each step, says the step's name in a line, and goes on
// when the line is answered or the connection ends: with nobody listening it is held nowhere. Only build/matrix and build/e2e build it so.
//
// Beside the names below, each action of the hand-off's machine (directory/baton) is a step, just before it is carried out, by the
// action's own name.
//
// To test: go test -tags tagalonghold ./app/holdpoint
package holdpoint

// The steps beside the machine's actions.
const (
	// Memory is on the giver, once an attempt: memory flows, the guest runs.
	Memory = "memory"
	// Switchover is on the giver: the guest stands still, the disk is sealed, all but the devices' state has left.
	Switchover = "switchover"
	// Feed is on an owner, before it mirrors to another device, each time it begins to.
	Feed = "feed"
	// Lend is on a device that the owner fetches blocks from, before it gives any.
	Lend = "lend"
	// Saving is on an owner: the guest stands still, and nothing of its memory is saved yet. Sending is there too: it is saved for another device, and its
	// hypervisor has ended. Restoring is where a saved memory is loaded, and the guest could go on; that it is used up isn't written yet.
	Saving    = "saving"
	Sending   = "sending"
	Restoring = "restoring"
)
