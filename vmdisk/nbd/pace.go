package nbd

import "time"

const (
	// readPace and writePace are what a request may take to count as quick, beside bytePace for its bytes. What isn't in
	// memory takes longer to read; a write that the kernel holds back takes far longer.
	readPace  = 20 * time.Microsecond
	writePace = 200 * time.Microsecond
	// bytePace is 2 GB/s, in bytes a nanosecond.
	bytePace = 2
	// sampled is how many requests there are to each whose time is taken.
	sampled = 8
	// A slow request adds slowScore to the score, a quick one takes 1 off. At restScore the next restFor requests go to
	// the workers.
	slowScore, restScore, restFor = 4, 8, 256
)

// pace finds out whether requests that should be quick are: those that wait for the device hold up all that come after
// them, and are better off side by side. It is for one goroutine.
type pace struct {
	limit              time.Duration
	count, score, rest int
}

// quick reports whether the next request should be tried at once.
func (p *pace) quick() bool {
	if p.rest == 0 {
		return true
	}
	p.rest--
	return false
}

// begin returns the time, or none if this request isn't measured.
func (p *pace) begin() (start time.Time) {
	if p.count++; p.count%sampled == 0 {
		start = time.Now()
	}
	return start
}

// end notes a request of n bytes that began at start. It returns how long that took, and those that weren't measured since the one before, as far as that is
// known; or 0.
func (p *pace) end(start time.Time, n int64) (took time.Duration) {
	if start.IsZero() {
		return 0
	}
	d := time.Since(start)
	p.note(d <= p.limit+time.Duration(n/bytePace))
	return sampled * d
}

func (p *pace) note(quick bool) {
	if quick {
		p.score = max(0, p.score-1)
		return
	}
	if p.score += slowScore; p.score >= restScore {
		p.score, p.rest = 0, restFor
	}
}
