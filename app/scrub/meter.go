package scrub

import "time"

const (
	// meterSteps is over how many steps a rate is taken, meterHolds for how long the last one speaks for the present.
	meterSteps = 16
	meterHolds = 2 * time.Minute
)

// Meter says how fast a round gets on. The zero Meter knows nothing.
type Meter struct {
	steps []meterStep
}

type meterStep struct {
	at    time.Time
	bytes int64
}

// Stepped notes that a step of n bytes has ended.
func (m *Meter) Stepped(now time.Time, n int64) {
	if k := len(m.steps); k > 0 && now.Sub(m.steps[k-1].at) > meterHolds {
		m.steps = m.steps[:0] // it rested
	}
	m.steps = append(m.steps, meterStep{now, n})
	m.steps = m.steps[max(0, len(m.steps)-meterSteps):]
}

// Rate is in bytes a second; 0 while that can't be said.
func (m *Meter) Rate(now time.Time) int64 {
	k := len(m.steps)
	if k < 2 || now.Sub(m.steps[k-1].at) > meterHolds {
		return 0
	}
	took, bytes := m.steps[k-1].at.Sub(m.steps[0].at), int64(0)
	for _, s := range m.steps[1:] {
		bytes += s.bytes
	}
	if took <= 0 {
		return 0
	}
	return int64(float64(bytes) / took.Seconds())
}
