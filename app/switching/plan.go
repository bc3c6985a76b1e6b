package switching

import (
	"time"
)

// Estimate is what would be, were the guest stopped now.
type Estimate struct {
	Memory int64         // bytes that are left, with what was written meanwhile
	Rate   int64         // bytes of memory that leave a second; 0 while unknown
	Dirty  int64         // bytes that the guest writes anew a second; 0 while unknown
	Pause  time.Duration // for how long the guest would stand still; 0 while unknown
}

// Step is how far a Plan goes to get a guest away that writes much.
type Step string

// The steps. A guest may be both slowed and allowed a longer pause.
const (
	StepUsual  Step = ""
	StepSlowed Step = "slowed" // the guest's CPUs are slowed down
	StepLonger Step = "longer" // it may stand still for longer
)

// Standing is how a Plan stands, for who tells of it.
type Standing struct {
	Step    Step          // the last one taken
	Slow    int           // percent
	Allowed time.Duration // for how long the guest may stand still
	Estimate
}

// Plan decides when a running guest is stopped, so that it stands still for no longer than allowed, and what is done where memory is
// written faster than it leaves: the guest is slowed down, in steps, then it may stand still for longer, in steps; then the plan gives up and
// says for how long it would. It is pure: who owns it says what is seen and what time it is.
type Plan struct {
	rule    Rule
	early   bool
	ahead   bool // the guest goes ahead of what is left
	allowed []time.Duration
	level   int // of allowed
	slow    int // of rule.Slow, 0 is not at all
	since   time.Time
	step    Step

	speed speed
	// Of the present pass: its number, when it began, and how much of the memory it began with. dirty is bytes a second.
	pass   int
	began  time.Time
	first  int64
	dirty  int64
	stalls int
	now    Estimate
}

// NewPlan makes a plan for one teleport. allowed is for how long the guest may stand still, 0 is the rule's. early says that the
// guest was too idle to be caught after a pass at the attempt before.
func NewPlan(rule Rule, allowed time.Duration, early bool) *Plan {
	p := &Plan{rule: rule, early: early, speed: speed{over: rule.SpeedOver, every: rule.SpeedEvery}}
	if allowed <= 0 {
		allowed = rule.Pause
	}
	p.allowed = []time.Duration{allowed}
	for _, d := range rule.Longer {
		if d > allowed {
			p.allowed = append(p.allowed, d)
		}
	}
	return p
}

// Standing is how the plan stands after the last look.
func (p *Plan) Standing() Standing {
	return Standing{Step: p.step, Slow: p.slowed(), Allowed: p.allowed[p.level], Estimate: p.now}
}

func (p *Plan) slowed() int {
	if p.slow == 0 {
		return 0
	}
	return p.rule.Slow[p.slow-1]
}

// Next says what to do at a look.
func (p *Plan) Next(s Sight) Order {
	p.speed.note(s)
	fresh := s.Passes > p.pass
	gained := true
	if fresh {
		gained = p.turn(s)
	}
	p.estimate(s)
	fits := p.now.Pause <= p.allowed[p.level]
	switch {
	case p.early && s.Remaining <= p.rule.EarlyStop && (fits || s.Remaining <= p.rule.HoldBelow):
		return Order{Act: Stop} // it has shown that it writes next to nothing
	case s.Passes < p.rule.MinPasses:
		return p.letOut(s, false)
	case p.ahead:
		return Order{Act: Stop}
	case p.now.Pause == 0: // nothing is known of the line
		if s.Remaining <= p.rule.ParkBelow {
			return Order{Act: Stop}
		}
		return p.letOut(s, false)
	case s.Remaining <= p.rule.HoldBelow && fits:
		return Order{Act: Stop}
	case !fresh:
		// How much is left is known when a pass has just begun: what is written since isn't seen before its end.
		return p.letOut(s, false)
	}
	small, going := p.memoryTime() <= p.rule.Small, gained && !p.hopeless() && s.Passes < p.rule.MaxPasses
	switch {
	case fits && (small || !going):
		return Order{Act: Stop}
	case fits:
		p.stalls = 0
		return p.letOut(s, false)
	case small:
		// What is in the way isn't the memory: nothing that is done to the guest would help.
		return p.farther(s, p.longer())
	case going:
		p.stalls = 0
	default:
		p.stalls++
	}
	if p.stalls < p.rule.Stalls {
		return p.letOut(s, false)
	}
	p.stalls = p.rule.Stalls - 1 // what is done is given one pass to help
	return p.farther(s, p.slower() || p.longer())
}

// turn begins a new pass, and says whether the one before was worth it. A pass ends when all of it has left, so it
// begins with what the guest wrote in the one before.
func (p *Plan) turn(s Sight) (gained bool) {
	gained = p.pass < p.rule.MinPasses || s.Remaining*100 <= p.first*p.rule.Gain
	if took := s.Now.Sub(p.began); p.pass > 0 && took > 0 {
		p.dirty = int64(float64(s.Remaining) / took.Seconds())
	}
	p.pass, p.began, p.first = s.Passes, s.Now, s.Remaining
	return gained
}

// estimate works out what a stop now would mean.
func (p *Plan) estimate(s Sight) {
	p.now = Estimate{Memory: s.Remaining, Dirty: p.dirty}
	if s.Sent >= p.rule.Known {
		p.now.Rate = p.speed.rate(s)
	}
	if p.pass > 1 && s.Now.After(p.began) {
		// As much again as in the pass before at most: a guest writes the same pages over and over. How soon, nobody knows.
		p.now.Memory += p.first
	}
	if p.now.Rate > 0 {
		p.now.Pause = span(p.now.Memory+s.OnWay+p.rule.Devices, p.now.Rate) + p.rule.Seal + s.Disk
	}
}

// memoryTime is how long the memory takes that is left.
func (p *Plan) memoryTime() time.Duration { return span(p.now.Memory, p.now.Rate) }

// hopeless says that another pass wouldn't leave noticeably less: memory is written about as fast as it leaves.
func (p *Plan) hopeless() bool { return p.dirty*100 >= p.now.Rate*p.rule.Gain }

// slower slows the guest down to where it should write at half the line's speed, by a step at least.
func (p *Plan) slower() bool {
	if p.slow == len(p.rule.Slow) {
		return false
	}
	was := p.slowed()
	for p.slow++; p.slow < len(p.rule.Slow); p.slow++ {
		if float64(p.dirty)*float64(100-p.slowed())/float64(100-was) <= float64(p.now.Rate)/2 {
			break
		}
	}
	p.step = StepSlowed
	return true
}

// longer allows a longer pause.
func (p *Plan) longer() bool {
	if p.level == len(p.allowed)-1 {
		return false
	}
	p.level++
	p.step = StepLonger
	return true
}

// farther goes on with a step that was taken, or gives up.
func (p *Plan) farther(s Sight, taken bool) Order {
	switch {
	case !taken:
		return Order{Act: GiveUp}
	case p.slow > 0 && p.since.IsZero():
		p.since = s.Now
	}
	return p.letOut(s, true)
}

func (p *Plan) letOut(s Sight, stepped bool) Order {
	o := Order{Portion: p.rule.portion(s.Remaining), Stepped: stepped}
	if slowed := p.slowed(); slowed > 0 {
		at := s.Now.Sub(p.since) % p.rule.SlowPeriod
		o.Stand = at < p.rule.SlowPeriod*time.Duration(slowed)/100
	}
	return o
}

// aLongTime is what a span is at most.
const aLongTime = 1000 * time.Hour

// span is how long bytes take at a rate.
func span(bytes, rate int64) time.Duration {
	if seconds := float64(bytes) / float64(rate); seconds < aLongTime.Seconds() {
		return time.Duration(seconds * float64(time.Second))
	}
	return aLongTime
}

// speed is how fast a line carries memory: the fastest of the last while, as there are moments in which the line isn't what it waits for.
type speed struct {
	over, every time.Duration
	samples     []sample
	most        int64 // the fastest that was ever seen
	at          time.Time
	sent        int64
}

type sample struct {
	at   time.Time
	rate int64
}

func (v *speed) note(s Sight) {
	if v.at.IsZero() {
		v.at, v.sent = s.Now, s.Sent
		return
	}
	took := s.Now.Sub(v.at)
	if took < v.every {
		return
	}
	rate := int64(float64(s.Sent-v.sent) / took.Seconds())
	v.samples, v.most = append(v.samples, sample{s.Now, rate}), max(v.most, rate)
	for len(v.samples) > 1 && s.Now.Sub(v.samples[0].at) > v.over {
		v.samples = v.samples[1:]
	}
	v.at, v.sent = s.Now, s.Sent
}

// rate is 0 while nothing is known. A line that knows its own speed may carry more than hypervisors and processors keep up with: then it
// is what has been seen at best, ever, since there are long whiles in which next to nothing is there to be carried.
func (v *speed) rate(s Sight) int64 {
	switch {
	case s.Speed > 0 && v.most > 0:
		return min(s.Speed, v.most)
	case s.Speed > 0:
		return s.Speed
	}
	var best int64
	for _, x := range v.samples {
		best = max(best, x.rate)
	}
	return best
}
