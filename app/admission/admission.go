// Package admission says how much memory this device has for one more guest. What the system calls available says little of that: a
// guest touches its memory when it needs it, so one that was started a moment ago has been promised much and uses next to none.
//
// It is pure. What it says is an estimate: programs beside the guests take memory without asking anybody.
//
// To test: go test ./app/admission
package admission

// Claim is what one guest was promised, and what it has taken of that by now. Both in bytes.
type Claim struct {
	Promised int64
	// Taken is what the system has given it already; 0 if nobody knows.
	Taken int64
}

// Left is how much of the free bytes isn't promised to anybody, at least 0.
func Left(free int64, others []Claim) int64 {
	for _, c := range others {
		free -= max(0, c.Promised-max(0, c.Taken))
	}
	return max(0, free)
}
