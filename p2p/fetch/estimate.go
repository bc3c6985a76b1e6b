package fetch

import "time"

const (
	// mostAsked is how many questions are open on one stream.
	mostAsked = 512
	// fresh is how long it is believed what demands took.
	fresh = 10 * time.Second
	// calm is how long after a demand the next one is expected.
	calm = 250 * time.Millisecond
	// rateSpan is how much measuring makes a new rate.
	rateSpan = 500 * time.Millisecond
)

// estimate is what is known of how fast a link answers, and what it was asked. Not safe for concurrent use.
type estimate struct {
	pace  pace
	asked [2]int // questions that are open, of each stream
	bytes int64  // of demands that are open
	// heard is when a demand was answered last, or the first of the open ones was asked.
	heard time.Time
	// sudden are the open ones that came unforeseen, wanted is when there was one last.
	sudden int
	wanted time.Time
	took   time.Duration // what a demand takes beside the transfer of its bytes, smoothed
	last   time.Time     // when took was measured

	rate  float64   // bytes per second, smoothed; 0 if unknown
	since time.Time // what came since then isn't in rate yet; zero if nothing is awaited
	came  int64     // bytes
}

// book says that n bytes are being asked for, by a demand that nobody foresaw or not.
func (e *estimate) book(now time.Time, stream int, n int64, sudden bool) {
	if e.asked[behind]+e.asked[ahead] == 0 {
		e.since, e.came = now, 0
	}
	if stream == behind {
		e.pace.take(n)
	} else {
		if sudden {
			e.wanted = now
			e.sudden++
		}
		if e.asked[ahead] == 0 {
			e.heard = now
		}
		e.bytes += n
	}
	e.asked[stream]++
}

// end says that a question for n bytes has ended; after took it was answered, unless that is 0.
func (e *estimate) end(now time.Time, stream int, n int64, sudden bool, took time.Duration) {
	e.asked[stream]--
	if took > 0 {
		e.pace.sample(now, took)
		e.came += n
	}
	e.measure(now)
	if stream == behind {
		e.pace.give(now, n, took, e.tight(now))
		return
	}
	e.bytes -= n
	if sudden {
		e.wanted = now
		e.sudden--
	}
	if took == 0 {
		return
	}
	e.heard = now
	beside := max(e.pace.base(), took-e.transfer(e.bytes+n))
	if e.last.IsZero() || now.Sub(e.last) > fresh {
		e.took = beside
	}
	e.took += (beside - e.took) / 4
	e.last = now
}

// tight says that somebody waits whom nobody foresaw, or just did: then little may stand before what they want next. Who reads on in
// sequence, and has only come up with what is on its way to him, wants it to be much instead.
func (e *estimate) tight(now time.Time) bool { return e.sudden > 0 || now.Sub(e.wanted) < calm }

// measure makes a rate of what came, if that is enough to tell.
func (e *estimate) measure(now time.Time) {
	idle := e.asked[behind]+e.asked[ahead] == 0
	dt := now.Sub(e.since)
	if dt <= 0 || !idle && dt < rateSpan/10 {
		return
	}
	rate := float64(e.came) / dt.Seconds()
	if e.rate == 0 {
		e.rate = rate
	}
	e.rate += (rate - e.rate) * min(1, dt.Seconds()/rateSpan.Seconds())
	e.since, e.came = now, 0
}

// transfer is how long n bytes take on their way. Of a link that had little to do it is known from how much it was trusted with.
func (e *estimate) transfer(n int64) time.Duration {
	rate := max(e.rate, float64(e.pace.window)/(e.pace.base()+standing).Seconds())
	return time.Duration(float64(n) / rate * float64(time.Second))
}

// usual is how long a question for n bytes is expected to take if it is asked now, n included in what is booked or not.
func (e *estimate) usual(now time.Time, stream int, n int64) time.Duration {
	if stream == behind {
		return e.pace.base() + e.transfer(e.pace.flying+n)
	}
	t := e.pace.base()
	if now.Sub(e.last) <= fresh {
		t = e.took
	}
	t += e.transfer(e.bytes + n)
	// Who has been silent for long won't answer soon.
	if silent := now.Sub(e.heard); e.asked[ahead] > 0 && silent > 3*t {
		t += silent
	}
	return t
}

// late is after what time somebody else is asked too.
func late(usual time.Duration, stream int) time.Duration {
	if stream == behind {
		return max(time.Second, 6*usual)
	}
	return 3*usual + 25*time.Millisecond
}
