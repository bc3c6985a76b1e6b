package api

import "time"

// Trailing says how much of a VM's memory comes after it: it was switched by post-copy, runs on the device that says so, and what it lacks of its memory
// is still on the one that it left. What the VM touches of that is fetched at once. Sizes are in bytes.
type Trailing struct {
	// From must stay on and connected until the rest has come: the memory would be lost with it.
	From     string `json:"from"`
	FromName string `json:"from_name"`
	// Remaining is what is still to come, 0 while unknown; Rate is in bytes a second, ETA zero when unknown.
	Remaining int64         `json:"remaining"`
	Rate      int64         `json:"rate"`
	ETA       time.Duration `json:"eta_ns,omitempty"`
	// Waiting says that the connection to From is lost: the VM may stand still until it is back.
	Waiting bool `json:"waiting"`
}
