package flow

import (
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Codec says how the content of a frame is written. The numbers are those on the wire.
type Codec byte

const (
	Raw  Codec = 0
	Zstd Codec = 1
)

// level is how much effort goes into compressing; raw is none.
type level int

const (
	levelRaw     level = 0
	levelFastest level = 1
	levelDefault level = 2
	levelBetter  level = 3
)

// MaxLanes is how many lanes there are at most. One connection, and who expands in one lane at its other end, carry about what so many make.
const MaxLanes = 4

// Lanes is how many cores may compress at once on a computer with so many, without any of them being one that the guests there may want, with so many
// processors, or the one that reads what the guest's hypervisor sends, and encrypts: one at least, as there has to be one.
func Lanes(cores, guests int) int { return min(max(cores-guests-1, 1), MaxLanes) }

// Plan is how content is compressed. The zero value leaves it as it is.
type Plan struct {
	level level
	// Lanes is in how many lanes at once, each with a piece of its own.
	Lanes int
}

// Raw says that the content stays as it is.
func (p Plan) Raw() bool { return p.level == levelRaw }

// levels has what each level does to a disk's usual content (blocks of an ext4 file system with /usr on it, one core): bytes a second, and how many
// times smaller it gets. "Best" isn't among them: a tenth of the speed for 4 %.
var levels = [...]struct {
	speed, ratio float64
	zstd         zstd.EncoderLevel
}{
	levelRaw:     {ratio: 1},
	levelFastest: {speed: 189e6, ratio: 2.56, zstd: zstd.SpeedFastest},
	levelDefault: {speed: 123e6, ratio: 2.67, zstd: zstd.SpeedDefault},
	levelBetter:  {speed: 90e6, ratio: 2.71, zstd: zstd.SpeedBetterCompression},
}

const (
	// tryEvery is how often something is compressed though it isn't worth it, so as to see when it would be.
	tryEvery = 16
	// starvedFrom is from which part of what compressing can do on a link counts as waiting for it: one that waits seems slower than it is.
	starvedFrom = 2
	// worthwhile is by how much a level must be better than a cheaper one, worthALane what one more lane must bring: a core has other things to do.
	worthwhile = 1.02
	worthALane = 1.1
	// enough is from how much on a try says something, in bytes.
	enough = 16 << 10
	// unknownLink is what is assumed of a link that wasn't measured yet, in bytes a second.
	unknownLink = 1e6
)

// choice chooses the level, and in how many lanes: that with which most content a second goes through the link, given what this computer and this content
// have shown so far. Links that are as slow as the Internet's need one lane at any level, so more of them don't make anything smaller there.
type choice struct {
	share  float64 // how much of a core a lane may take
	most   int     // how many lanes it may take
	quick  float64 // how fast this computer compresses, of what levels says
	dense  float64 // how much smaller the content gets, of what levels says: 1 is as much, 0 not at all
	rawRun int
}

func newChoice(share float64, lanes int) choice {
	return choice{share: share, most: min(max(lanes, 1), MaxLanes), quick: 1, dense: 1}
}

// next is how the next batch is compressed, on a link of so many bytes a second; 0 is unknown. starved says that the link has nothing to send until then.
func (c *choice) next(link float64, starved bool) Plan {
	if link == 0 {
		link = unknownLink
	}
	plan, through := Plan{Lanes: 1}, link
	for lanes := 1; lanes <= c.most; lanes++ {
		p, t := c.within(link, lanes)
		if lanes == 1 || t > through*worthALane {
			plan, through = p, t
		}
	}
	if starved && starvedFrom*link*(1+(levels[levelFastest].ratio-1)*c.dense) > levels[levelFastest].speed*c.quick*c.share*float64(plan.Lanes) {
		return Plan{Lanes: plan.Lanes}
	}
	if !plan.Raw() {
		c.rawRun = 0
		return plan
	}
	if c.rawRun++; c.rawRun%tryEvery == 0 {
		plan.level = levelFastest // the content may be another by now
	}
	return plan
}

// within is the best that can be done in so many lanes, and how much content a second goes through with it, in bytes.
func (c *choice) within(link float64, lanes int) (Plan, float64) {
	best, most := levelRaw, link
	for l := levelFastest; l <= levelBetter; l++ {
		ratio := 1 + (levels[l].ratio-1)*c.dense
		if through := min(link*ratio, levels[l].speed*c.quick*c.share*float64(lanes)); through > most*worthwhile {
			best, most = l, through
		}
	}
	if best == levelRaw {
		lanes = 1
	}
	return Plan{level: best, Lanes: lanes}, most
}

// learn takes what a level made of n bytes, and how long it took.
func (c *choice) learn(l level, n, small int, took time.Duration) {
	if l == levelRaw || n < enough {
		return // says too little
	}
	ratio := float64(n) / float64(min(n, max(small, 1)))
	dense := min((ratio-1)/(levels[l].ratio-1), 4)
	c.dense += (dense - c.dense) / 8
	if took > 0 {
		quick := min(float64(n)/took.Seconds()/levels[l].speed, 16)
		c.quick += (quick - c.quick) / 8
	}
}

// ratio is how many times smaller the content is likely to become over a link of so many bytes a second; 0 is unknown.
func (c *choice) ratio(link float64) float64 {
	if link == 0 {
		link = unknownLink
	}
	if levels[levelFastest].speed*c.quick*c.share*float64(c.most) < link {
		return 1
	}
	return 1 + (levels[levelFastest].ratio-1)*c.dense
}

// Compressor compresses content, at the level that gets most of it through a link. Not safe for concurrent use.
type Compressor struct {
	choice choice
	own    *Lane
	most   int
}

// NewCompressor makes one for pieces of at most so many bytes, that takes at most so much of a processor's core for compressing in a lane, and at most so many
// lanes, and never more than MaxLanes; what it leaves is for others, such as the guest.
func NewCompressor(share float64, most, lanes int) *Compressor {
	x := &Compressor{choice: newChoice(share, lanes), most: most}
	x.own = x.Lane()
	return x
}

// Ratio is how many times smaller the next content is likely to become, at least 1, over a link of so many bytes a second; 0 is unknown.
func (x *Compressor) Ratio(link float64) float64 { return x.choice.ratio(link) }

// Plan is how the next piece is best compressed over a link of so many bytes a second (0 is unknown). starved says that the link has
// nothing to send until then: so much is compressed as the link is the narrower one, and no more.
func (x *Compressor) Plan(link float64, starved bool) Plan { return x.choice.next(link, starved) }

// Learn takes what a lane has found out.
func (x *Compressor) Learn(e Effort) { x.choice.learn(e.level, e.content, e.small, e.took) }

// Lane makes a lane.
func (x *Compressor) Lane() *Lane { return &Lane{most: x.most} }

// Pack does all of that for one piece, in a lane of its own. The result is valid until the next call, or is content itself.
func (x *Compressor) Pack(content []byte, link float64, starved bool) (Codec, []byte, error) {
	return x.PackAs(x.Plan(link, starved), content)
}

// PackAs is Pack with a plan that was made before.
func (x *Compressor) PackAs(p Plan, content []byte) (Codec, []byte, error) {
	codec, body, effort, err := x.own.Pack(p, content)
	x.Learn(effort)
	return codec, body, err
}

// Lane compresses one piece at a time as its Compressor has planned it, beside the others of its kind, each in a goroutine of its own. Not safe for concurrent use.
type Lane struct {
	most int
	enc  [len(levels)]*zstd.Encoder
	out  []byte
}

// Effort is what one piece has shown, for the Compressor to learn of. The zero value shows nothing.
type Effort struct {
	level          level
	content, small int // bytes
	took           time.Duration
}

// Pack returns the content, compressed if that was planned and makes it smaller, and what it took. The result is valid until the next call, or is content itself.
func (y *Lane) Pack(p Plan, content []byte) (Codec, []byte, Effort, error) {
	if p.Raw() {
		return Raw, content, Effort{}, nil
	}
	l := p.level
	if y.enc[l] == nil {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(levels[l].zstd), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(windowFor(y.most)), zstd.WithEncoderCRC(false))
		if err != nil {
			return 0, nil, Effort{}, fmt.Errorf("compress: %w", err)
		}
		y.enc[l] = enc
	}
	began := time.Now()
	y.out = y.enc[l].EncodeAll(content, y.out[:0])
	e := Effort{l, len(content), len(y.out), time.Since(began)}
	if len(y.out) >= len(content) {
		return Raw, content, e, nil
	}
	return Zstd, y.out, e, nil
}

// windowFor is the window of content of so many bytes: zstd takes powers of two, from 1 KiB.
func windowFor(most int) int {
	w := zstd.MinWindowSize
	for w < most {
		w *= 2
	}
	return w
}

// ErrContent says that what came isn't what a Compressor makes.
var ErrContent = errors.New("flow: not what was compressed")

// Expander undoes what a Compressor did. Not safe for concurrent use.
type Expander struct {
	most int
	dec  *zstd.Decoder
	out  []byte
}

// NewExpander makes one for pieces of at most so many bytes.
func NewExpander(most int) *Expander { return &Expander{most: most} }

// Unpack returns the n bytes that body stands for; valid until the next call, or body itself. n is at most what NewExpander was told. It takes no more memory than
// that, whatever body says. Errors: ErrContent.
func (x *Expander) Unpack(c Codec, body []byte, n int) ([]byte, error) {
	if n > x.most {
		return nil, fmt.Errorf("content of %d bytes: %w", n, ErrContent)
	}
	switch {
	case c == Raw && len(body) == n:
		return body, nil
	case c != Zstd:
		return nil, fmt.Errorf("codec %d, %d bytes for %d: %w", c, len(body), n, ErrContent)
	}
	if x.dec == nil {
		// It takes what any encoder makes, so its window may be larger than the content.
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<20), zstd.WithDecoderMaxMemory(uint64(x.most)), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return nil, fmt.Errorf("expand: %w", err)
		}
		x.dec, x.out = dec, make([]byte, 0, x.most)
	}
	out, err := x.dec.DecodeAll(body, x.out[:0:n])
	if err != nil {
		return nil, fmt.Errorf("expand: %w: %w", ErrContent, err)
	}
	if len(out) != n {
		return nil, fmt.Errorf("content of %d bytes instead of %d: %w", len(out), n, ErrContent)
	}
	return out, nil
}
