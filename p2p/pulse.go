package p2p

import "time"

const (
	// beatInterval is how often each end asks the other whether it is there.
	beatInterval = 500 * time.Millisecond
	// silence is how long nothing may be heard before a connection counts as dead.
	silence = 3 * time.Second
	// maxPatience bounds what may be added to silence while earlier data is still on its way.
	maxPatience = 12 * time.Second
	// maxUnanswered bounds the questions that are kept; when so many are open, no more are asked.
	maxUnanswered = 64
	// firstRate and leastRate are bytes a second: what is assumed of a link before it was measured, and at least.
	firstRate = 1 << 20
	leastRate = 64 << 10
	// rateSample is how many bytes must have passed for a measurement to say something.
	rateSample = 64 << 10
)

// pulse decides whether the other end of a connection is alive. It is pure: time, as time since some fixed moment, and
// byte counts come from outside. It is not safe for concurrent use.
//
// Questions travel in the same ordered connection as the data, so an answer proves that everything written before its
// question has arrived. That gives the rate of the link, and with it how long a question may wait behind data: on a slow
// link full of data, silence alone would be a false alarm.
type pulse struct {
	heardAt     time.Duration
	asked       uint64 // the latest question
	answered    uint64 // the latest answer
	open        []question
	delivered   int64 // bytes proven to have arrived
	deliveredAt time.Duration
	rate        float64 // bytes a second
	rtt         time.Duration
	read        int64 // bytes that had come when the latest question was asked or answered
	trips       trips
}

type question struct {
	seq     uint64
	at      time.Duration
	written int64
	read    int64
	quiet   bool // nearly nothing was on its way before it
}

func newPulse(now time.Duration) pulse {
	return pulse{heardAt: now, deliveredAt: now, rate: firstRate}
}

// ask returns the number of a new question, or false if too many are open. written counts the bytes written before.
func (p *pulse) ask(now time.Duration, written int64) (uint64, bool) {
	if len(p.open) >= maxUnanswered {
		return 0, false
	}
	p.asked++
	p.open = append(p.open, question{p.asked, now, written, p.read, written-p.delivered <= quietBytes})
	return p.asked, true
}

// answer takes in the answer to question seq. It reports false if that was not open: the other end talks nonsense.
func (p *pulse) answer(now time.Duration, seq uint64) bool {
	if seq <= p.answered || seq > p.asked {
		return false
	}
	for len(p.open) > 0 && p.open[0].seq < seq {
		p.open = p.open[1:]
	}
	q := p.open[0]
	p.open = p.open[1:]
	p.answered = seq
	p.rtt = now - q.at
	if q.quiet && p.read-q.read <= quietBytes {
		p.trips.add(p.rtt)
	}
	if bytes, took := q.written-p.delivered, now-p.deliveredAt; bytes >= rateSample && took > 0 {
		p.rate = max(leastRate, (p.rate+float64(bytes)/took.Seconds())/2)
	}
	p.delivered, p.deliveredAt = q.written, now
	p.heard(now)
	return true
}

// received notes how many bytes have come so far.
func (p *pulse) received(n int64) { p.read = n }

// heard notes that something came from the other end.
func (p *pulse) heard(now time.Duration) { p.heardAt = max(p.heardAt, now) }

// dead reports whether the connection has been silent for too long.
func (p *pulse) dead(now time.Duration) bool {
	patience := time.Duration(0)
	if len(p.open) > 0 {
		// Only the oldest open question counts: were it the newest, a trickle of writes would keep a dead link alive.
		waiting := float64(p.open[0].written-p.delivered) / p.rate
		patience = time.Duration(min(waiting, maxPatience.Seconds()) * float64(time.Second))
	}
	return now-p.heardAt > silence+patience
}
