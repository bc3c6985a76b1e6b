package push

import (
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
)

// codec says how the content of a Data frame is written. The numbers are those on the wire.
type codec byte

const (
	codecRaw  codec = 0
	codecZstd codec = 1
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
	// cpuShare is how much of a core a push may take for compressing: what is left is the guest's.
	cpuShare = 0.25
	// worthwhile is by how much a level must be better than a cheaper one.
	worthwhile = 1.02
	// unknownLink is what is assumed of a link that wasn't measured yet, in bytes a second.
	unknownLink = 1e6
)

// choice chooses the level: the one with which most content a second goes through the link, given what this computer and this content have
// shown so far.
type choice struct {
	quick  float64 // how fast this computer compresses, of what levels says
	dense  float64 // how much smaller the content gets, of what levels says: 1 is as much, 0 not at all
	rawRun int
}

func newChoice() choice { return choice{quick: 1, dense: 1} }

// next is the level for the next batch, on a link of so many bytes a second; 0 is unknown.
func (c *choice) next(link float64) level {
	if link == 0 {
		link = unknownLink
	}
	best, most := levelRaw, link
	for l := levelFastest; l <= levelBetter; l++ {
		ratio := 1 + (levels[l].ratio-1)*c.dense
		if through := min(link*ratio, levels[l].speed*c.quick*cpuShare); through > most*worthwhile {
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
	if l == levelRaw || n < 4*Block {
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

// cost is what a block is likely to take on the wire, in bytes.
func (c *choice) cost(link float64) float64 {
	if link == 0 {
		link = unknownLink
	}
	ratio := 1 + (levels[levelFastest].ratio-1)*c.dense
	if levels[levelFastest].speed*c.quick*cpuShare < link {
		ratio = 1
	}
	return Block / ratio
}

// compressor compresses batches. Not safe for concurrent use.
type compressor struct {
	choice choice
	enc    [len(levels)]*zstd.Encoder
	out    []byte
}

// pack returns the content, compressed if that makes it smaller. The result is valid until the next call, or is content itself.
func (x *compressor) pack(content []byte, link float64) (codec, []byte, error) {
	l := x.choice.next(link)
	if l == levelRaw {
		return codecRaw, content, nil
	}
	if x.enc[l] == nil {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(levels[l].zstd), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(MaxBatch), zstd.WithEncoderCRC(false))
		if err != nil {
			return 0, nil, fmt.Errorf("compress: %w", err)
		}
		x.enc[l] = enc
	}
	began := time.Now()
	x.out = x.enc[l].EncodeAll(content, x.out[:0])
	x.choice.learn(l, len(content), len(x.out), time.Since(began))
	if len(x.out) >= len(content) {
		return codecRaw, content, nil
	}
	return codecZstd, x.out, nil
}

// expander undoes what a compressor did. Not safe for concurrent use.
type expander struct {
	dec *zstd.Decoder
	out []byte
}

// unpack returns the n bytes that body stands for; valid until the next call. It takes no more memory than that, whatever body says.
func (x *expander) unpack(c codec, body []byte, n int) ([]byte, error) {
	if c == codecRaw {
		return body, nil
	}
	if x.dec == nil {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<20), zstd.WithDecoderMaxMemory(MaxBatch), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return nil, fmt.Errorf("expand: %w", err)
		}
		x.dec, x.out = dec, make([]byte, 0, MaxBatch)
	}
	out, err := x.dec.DecodeAll(body, x.out[:0:n])
	if err != nil {
		return nil, fmt.Errorf("content: %w: %w", ErrProtocol, err)
	}
	if len(out) != n {
		return nil, fmt.Errorf("content of %d bytes instead of %d: %w", len(out), n, ErrProtocol)
	}
	return out, nil
}
