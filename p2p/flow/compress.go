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
	// worthwhile is by how much a level must be better than a cheaper one.
	worthwhile = 1.02
	// enough is from how much on a try says something, in bytes.
	enough = 16 << 10
	// unknownLink is what is assumed of a link that wasn't measured yet, in bytes a second.
	unknownLink = 1e6
)

// choice chooses the level: the one with which most content a second goes through the link, given what this computer and this content have
// shown so far.
type choice struct {
	share  float64 // how much of a core it may take
	quick  float64 // how fast this computer compresses, of what levels says
	dense  float64 // how much smaller the content gets, of what levels says: 1 is as much, 0 not at all
	rawRun int
}

func newChoice(share float64) choice { return choice{share: share, quick: 1, dense: 1} }

// next is the level for the next batch, on a link of so many bytes a second; 0 is unknown. starved says that the link has nothing to send until then.
func (c *choice) next(link float64, starved bool) level {
	if link == 0 {
		link = unknownLink
	}
	if starved && starvedFrom*link*(1+(levels[levelFastest].ratio-1)*c.dense) > levels[levelFastest].speed*c.quick*c.share {
		return levelRaw
	}
	best, most := levelRaw, link
	for l := levelFastest; l <= levelBetter; l++ {
		ratio := 1 + (levels[l].ratio-1)*c.dense
		if through := min(link*ratio, levels[l].speed*c.quick*c.share); through > most*worthwhile {
			best, most = l, through
		}
	}
	if best != levelRaw {
		c.rawRun = 0
		return best
	}
	if c.rawRun++; c.rawRun%tryEvery == 0 {
		return levelFastest // the content may be another by now
	}
	return levelRaw
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
	if levels[levelFastest].speed*c.quick*c.share < link {
		return 1
	}
	return 1 + (levels[levelFastest].ratio-1)*c.dense
}

// Compressor compresses content, at the level that gets most of it through a link. Not safe for concurrent use.
type Compressor struct {
	choice choice
	most   int
	enc    [len(levels)]*zstd.Encoder
	out    []byte
}

// NewCompressor makes one for pieces of at most so many bytes, that takes at most so much of a processor's core for compressing; what it leaves is
// for others, such as the guest.
func NewCompressor(share float64, most int) *Compressor {
	return &Compressor{choice: newChoice(share), most: most}
}

// Ratio is how many times smaller the next content is likely to become, at least 1, over a link of so many bytes a second; 0 is unknown.
func (x *Compressor) Ratio(link float64) float64 { return x.choice.ratio(link) }

// Pack returns the content, compressed if that is worth it over a link of so many bytes a second (0 is unknown) and makes it smaller. starved says that the link has
// nothing to send until then: so much is compressed as the link is the narrower one, and no more. The result is valid until the next call, or is content itself.
func (x *Compressor) Pack(content []byte, link float64, starved bool) (Codec, []byte, error) {
	l := x.choice.next(link, starved)
	if l == levelRaw {
		return Raw, content, nil
	}
	if x.enc[l] == nil {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(levels[l].zstd), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(windowFor(x.most)), zstd.WithEncoderCRC(false))
		if err != nil {
			return 0, nil, fmt.Errorf("compress: %w", err)
		}
		x.enc[l] = enc
	}
	began := time.Now()
	x.out = x.enc[l].EncodeAll(content, x.out[:0])
	x.choice.learn(l, len(content), len(x.out), time.Since(began))
	if len(x.out) >= len(content) {
		return Raw, content, nil
	}
	return Zstd, x.out, nil
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
