// Package standstill says why a VM runs nowhere in the middle of a hand-off, and what a person can do about it. It lasts milliseconds on a good
// day; but the connection may end there, or the disk be full of the device that is to have the VM, and then it lasts until that is mended.
//
// It is pure: the caller says where the hand-off's machine (directory/baton) stands, and for how long. It doesn't decide anything: that a VM
// stands still is how the machine keeps it from running twice.
//
// To test: go test ./app/standstill
package standstill

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/directory/baton"
)

// Patience is how long a hand-off that nothing is known to be in the way of may stand at one of its last steps before it is told.
const Patience = 3 * time.Second

// Facts is how it stands.
type Facts struct {
	// VM and Other are the names of the VM and of the device at the hand-off's other end.
	VM, Other string
	State     baton.State
	// For is how long the machine has been in State.
	For time.Duration
	// Linked says that the other device can be talked to, Room that this device has room to write down who owns the VM.
	Linked, Room bool
	// Serves says that the VM has gone to the other device ahead of its memory, of which this one still has some.
	Serves bool
}

// Why is what the person reads, or nil while there is nothing to say.
func Why(f Facts) *api.Error {
	switch f.State {
	case baton.Giving, baton.Given, baton.Loaded, baton.Taking:
	default:
		return nil
	}
	if f.Serves && f.State == baton.Given {
		return serves(f)
	}
	force := fmt.Sprintf("tagalong switch --force %q", f.VM)
	switch {
	case !f.Room && f.State != baton.Given:
		return &api.Error{Code: api.CodeSpace, Sentence: fmt.Sprintf("%s stands still: this device's disk is too full to hand it over.", f.VM),
			Next: "Free some space on this device; then it goes on by itself.", Remedy: api.RemedyWait, Topic: api.TopicNoRoom, Other: f.Other}
	case !f.Linked && f.State == baton.Given:
		return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s stands still here: the connection to %s was lost while it was handed over.", f.VM, f.Other),
			Next: fmt.Sprintf("It goes on there, or here, when the two see each other again. If %s is lost, have it here: %s", f.Other, force), Remedy: api.RemedyTake, Topic: api.TopicGivenAway, Other: f.Other}
	case !f.Linked && f.State == baton.Loaded:
		return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("The connection to %s was lost while %s was handed over: it goes on there, or here when the two see each other again.", f.Other, f.VM),
			Next: fmt.Sprintf("If %s is lost, have it here: %s", f.Other, force), Remedy: api.RemedyTake, Topic: api.TopicTaking, Other: f.Other}
	case f.For < Patience:
		return nil
	case f.State == baton.Given || f.State == baton.Loaded:
		return &api.Error{Code: api.CodeBusy, Sentence: fmt.Sprintf("%s stands still: %s doesn't go on with the hand-over.", f.VM, f.Other),
			Next: fmt.Sprintf("Look what %s says: its disk may be full. When it can, the VM goes on by itself.", f.Other), Remedy: api.RemedyWait, Topic: api.TopicWaits, Other: f.Other}
	default:
		return &api.Error{Code: api.CodeInternal, Sentence: fmt.Sprintf("%s stands still: the hand-over can't be written down here.", f.VM),
			Next: "Check this device's disk; the engine's log has the cause. It is tried again until it works.", Remedy: api.RemedyWait, Topic: api.TopicUnwritten, Other: f.Other}
	}
}

// serves is what the person reads where the rest of the memory is.
func serves(f Facts) *api.Error {
	switch {
	case !f.Linked:
		return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s went to %s, some of its memory is still here, and the connection was lost: it may stand still there.", f.VM, f.Other),
			Next: "Keep this device on: the rest of the memory leaves by itself when the two see each other again, and would be lost with it.", Remedy: api.RemedyWait, Topic: api.TopicServesLost, Other: f.Other}
	case f.For < Patience:
		return nil
	default:
		return &api.Error{Code: api.CodeBusy, Sentence: fmt.Sprintf("%s runs on %s, and some of its memory is still here.", f.VM, f.Other),
			Next: "Keep this device on until that has left, which it does by itself: it would be lost with it.", Remedy: api.RemedyWait, Topic: api.TopicServes, Other: f.Other}
	}
}
