// Package meter turns growing counts of bytes into rates and the time that is left, for everything whose
// progress a person follows. It reads no clock: the caller says what time it is.
package meter

import (
	"time"
)

// Meter turns a growing count of bytes into a rate. The zero Meter is ready. It is not safe for concurrent use.
type Meter struct {
	at    time.Time
	bytes int64
	rate  float64 // bytes a second, smoothed over about two seconds
}

// minStep keeps single bursts from being read as a rate.
const minStep = 200 * time.Millisecond

// Update takes the count at a moment and returns the rate in bytes a second, 0 while it can't be said. A count that
// falls begins anew.
func (m *Meter) Update(now time.Time, bytes int64) int64 {
	if m.at.IsZero() || bytes < m.bytes {
		m.at, m.bytes, m.rate = now, bytes, 0
		return 0
	}
	step := now.Sub(m.at)
	if step < minStep {
		return int64(m.rate)
	}
	current := float64(bytes-m.bytes) / step.Seconds()
	if m.rate == 0 {
		m.rate = current
	} else {
		weight := min(step.Seconds()/2, 1)
		m.rate += (current - m.rate) * weight
	}
	m.at, m.bytes = now, bytes
	return int64(m.rate)
}

// TimeLeft is how long the remaining bytes take at a rate in bytes a second; 0 when that can't be said.
func TimeLeft(remaining, rate int64) time.Duration {
	if remaining <= 0 || rate <= 0 {
		return 0
	}
	return time.Duration(float64(remaining) / float64(rate) * float64(time.Second)).Round(time.Second / 10)
}
