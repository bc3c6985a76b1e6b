package app

import (
	"time"
)

// meter turns a growing count of bytes into a rate. It is not safe for concurrent use.
type meter struct {
	at    time.Time
	bytes int64
	rate  float64 // bytes a second, smoothed over about two seconds
}

// minMeterStep keeps single bursts from being read as a rate.
const minMeterStep = 200 * time.Millisecond

// update takes the count at a moment and returns the rate in bytes a second.
func (m *meter) update(now time.Time, bytes int64) int64 {
	if m.at.IsZero() || bytes < m.bytes {
		m.at, m.bytes, m.rate = now, bytes, 0
		return 0
	}
	step := now.Sub(m.at)
	if step < minMeterStep {
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

// timeLeft is how long the remaining bytes take at a rate; 0 when that can't be said.
func timeLeft(remaining, rate int64) time.Duration {
	if remaining <= 0 || rate <= 0 {
		return 0
	}
	return time.Duration(float64(remaining) / float64(rate) * float64(time.Second)).Round(time.Second / 10)
}
