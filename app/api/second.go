package api

import "time"

// The values of Spec.Sync: on how many devices a flush of the guest must be durable before it is answered.
const (
	SyncOne = "one" // on the one that runs the VM; the others follow
	SyncTwo = "two" // on one other too
)

// Two says whether a flush is answered only when a second device has it.
func (s Spec) Two() bool { return s.Sync != "" && s.Sync != SyncOne }

// SecondState is what becomes of the promise that a flush is answered only when a second device has it.
type SecondState string

// The states. In the last four there is no second copy to wait for: flushes are answered as with SyncOne.
const (
	SecondKept     SecondState = "kept"     // it is kept
	SecondWaiting  SecondState = "waiting"  // a flush has been waiting since Since; soon the VM stands still
	SecondPaused   SecondState = "paused"   // the VM stands still; it goes on by itself
	SecondAlone    SecondState = "alone"    // the fleet has no other device
	SecondOffline  SecondState = "offline"  // this device works offline
	SecondFilling  SecondState = "filling"  // this device itself still fetches parts of the disk
	SecondUncopied SecondState = "uncopied" // no other device has ever had a whole copy
)

// Held says whether flushes are answered only when a second device has them.
func (s SecondState) Held() bool {
	return s == SecondKept || s == SecondWaiting || s == SecondPaused
}

// SecondCopy says what becomes of the promise of SyncTwo.
type SecondCopy struct {
	State SecondState `json:"state"`
	Since time.Time   `json:"since,omitzero"`
}
