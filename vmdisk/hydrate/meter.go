package hydrate

import (
	"math"
	"time"
)

// memory is how far back the rate looks.
const memory = 5 * time.Second

// meter measures a rate, newer bytes counting more.
type meter struct {
	began, at time.Time
	sum       float64
}

func (m *meter) decay(now time.Time) {
	if m.began.IsZero() {
		m.began, m.at = now, now
	}
	m.sum *= math.Exp(-float64(now.Sub(m.at)) / float64(memory))
	m.at = now
}

// add counts n bytes.
func (m *meter) add(now time.Time, n int64) {
	m.decay(now)
	m.sum += float64(n)
}

// rate is in bytes per second, 0 if that isn't known yet.
func (m *meter) rate(now time.Time) float64 {
	m.decay(now)
	span := now.Sub(m.began)
	if span <= 0 {
		return 0
	}
	return m.sum / (memory.Seconds() * (1 - math.Exp(-float64(span)/float64(memory))))
}
