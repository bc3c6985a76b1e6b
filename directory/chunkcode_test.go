package directory

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
)

// pattern makes a chunk's set.
type pattern struct {
	name string
	span uint32
	fill func(r *rand.Rand, m bitmap, span uint32)
	most int // bytes that its encoding may take
}

func scattered(p float64, run uint32) func(*rand.Rand, bitmap, uint32) {
	return func(r *rand.Rand, m bitmap, span uint32) {
		for x := uint32(0); x < span; x += run {
			if r.Float64() < p {
				m.add(x, min(x+run, span))
			}
		}
	}
}

// files is what a file system's writing looks like: runs whose lengths, and distances, have no usual size.
func files(r *rand.Rand, m bitmap, span uint32) {
	for x := uint32(0); x < span; {
		n := uint32(math.Exp(r.NormFloat64()*2 + 2))
		m.add(x, min(x+n, span))
		x += n + 1 + uint32(math.Exp(r.NormFloat64()*2+4))
	}
}

// entropy is the least that n scattered blocks of share p can take, in bytes.
func entropy(p float64, n int) int {
	return int(-(p*math.Log2(p) + (1-p)*math.Log2(1-p)) * float64(n) / 8)
}

var patterns = []pattern{
	{"full", minSpan, func(_ *rand.Rand, m bitmap, span uint32) { m.add(0, span) }, 4},
	{"one block", minSpan, func(_ *rand.Rand, m bitmap, span uint32) { m.add(77_777, 77_778) }, 9},
	{"all but one", minSpan, func(_ *rand.Rand, m bitmap, span uint32) { m.add(0, 77_777); m.add(77_778, span) }, 20},
	{"1 in 1000", minSpan, scattered(.001, 1), entropy(.001, minSpan) * 108 / 100},
	{"1 %", minSpan, scattered(.01, 1), entropy(.01, minSpan) * 106 / 100},
	{"10 %", minSpan, scattered(.1, 1), entropy(.1, minSpan) * 105 / 100},
	{"10 %, largest span", maxSpan, scattered(.1, 1), entropy(.1, maxSpan) * 105 / 100},
	{"10 %, runs of 16", minSpan, scattered(.1, 16), 2700},
	{"10 %, runs of 1024", minSpan, scattered(.1, 1024), 90},
	{"half", minSpan, scattered(.5, 1), minSpan/8 + 4},
	{"90 %", minSpan, scattered(.9, 1), entropy(.1, minSpan) * 125 / 100},
	{"files", minSpan, files, 5000},
	{"files, odd span", 12345, files, 300},
	{"two blocks of three", 3, func(_ *rand.Rand, m bitmap, span uint32) { m.add(1, 3) }, 6},
}

func TestChunkSizes(t *testing.T) {
	for _, p := range patterns {
		m := newBitmap(p.span)
		p.fill(rand.New(rand.NewPCG(1, 2)), m, p.span)
		b := encodeChunk(nil, m, p.span)
		t.Logf("%-20s %7d blocks of %7d: %6d bytes, way %d", p.name, m.count(), p.span, len(b), b[0])
		if len(b) > p.most || len(b) > MaxChunk {
			t.Errorf("%s takes %d bytes, more than %d", p.name, len(b), p.most)
		}
		again, span, err := decodeChunk(b)
		if err != nil || span != p.span || !slices.Equal(again, m) {
			t.Fatalf("%s: decoded otherwise: %v", p.name, err)
		}
	}
}

// Sets of every kind and size come back as they were, and what isn't exactly an encoding is refused.
func TestChunkRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		span := 1 + r.Uint32N(1<<(1+r.IntN(13)))
		m := newBitmap(span)
		scattered(r.Float64(), 1+r.Uint32N(1<<r.IntN(10)))(r, m, span)
		b := encodeChunk(nil, m, span)
		if m.count() == 0 {
			if len(b) != 0 {
				t.Fatal("an empty set has an encoding")
			}
			continue
		}
		again, s, err := decodeChunk(b)
		if err != nil || s != span || !slices.Equal(again, m) {
			t.Fatalf("%d of %d blocks: decoded otherwise: %v", m.count(), span, err)
		}
		if _, _, err := decodeChunk(append(bytes.Clone(b), 0)); err == nil {
			t.Fatal("a byte too many is accepted")
		}
		if _, _, err := decodeChunk(b[:len(b)-1]); err == nil {
			t.Fatal("a byte less is accepted")
		}
		bad := bytes.Clone(b)
		bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		if other, s, err := decodeChunk(bad); err == nil && s == span && slices.Equal(other, m) {
			t.Fatalf("one set has two encodings: %x and %x", b, bad)
		}
	}
}

// Every way of writing a set but the shortest is refused.
func TestChunkOnlyOneEncoding(t *testing.T) {
	m := newBitmap(64)
	m.add(3, 5)
	good := encodeChunk(nil, m, 64)
	for name, b := range map[string][]byte{
		"bitmap":        append([]byte{chunkBitmap, 64}, 0x18, 0, 0, 0, 0, 0, 0, 0),
		"long span":     append([]byte{good[0], 64 | 0x80, 0}, good[2:]...),
		"empty blocks":  {chunkBlocks, 64, 0, 0},
		"empty runs":    {chunkRuns, 64, 0, 0, 0},
		"empty bitmap":  {chunkBitmap, 64, 0, 0, 0, 0, 0, 0, 0, 0},
		"span 0":        {chunkFull, 0},
		"span too big":  {chunkFull, 0x81, 0x80, 0x40},
		"unknown way":   {5, 64},
		"huge count":    {chunkBlocks, 64, 0xff, 0xff, 0xff, 0xff, 0x0f, 0},
		"k too big":     {chunkBlocks, 64, 1, maxClass + 1, 0},
		"no end":        {chunkBlocks, 64, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"beyond":        {chunkRuns, 64, 1, 0, 20, 0xfe, 0xff, 0xff},
		"bits after it": {chunkBitmap, 4, 0x1a},
	} {
		if _, _, err := decodeChunk(b); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, _, err := decodeChunk(good); err != nil {
		t.Error(err)
	}
}

// The encoding never changes: devices of all versions must name a set alike.
func TestChunkGolden(t *testing.T) {
	all := blake3.New()
	for _, p := range patterns {
		if strings.HasPrefix(p.name, "files") {
			continue // its logarithms aren't the same to the last bit everywhere
		}
		m := newBitmap(p.span)
		p.fill(rand.New(rand.NewPCG(1, 2)), m, p.span)
		_, _ = all.Write(encodeChunk(nil, m, p.span))
	}
	m := newBitmap(1000)
	m.add(3, 9)
	m.add(64, 65)
	m.add(500, 900)
	const small, sum = "03e8070305024665f164ff1e01", "4144f2c5ebc1c4b4935c8402ef3aafdcb1284d021107d9e5ef57bf5ea197229b"
	if got := hex.EncodeToString(encodeChunk(nil, m, 1000)); got != small {
		t.Errorf("the small one is %s", got)
	}
	if got := hex.EncodeToString(all.Sum(nil)); got != sum {
		t.Errorf("all together are %s", got)
	}
}

func FuzzChunk(f *testing.F) {
	for _, p := range patterns {
		m := newBitmap(p.span)
		p.fill(rand.New(rand.NewPCG(1, 2)), m, p.span)
		if b := encodeChunk(nil, m, p.span); len(b) < 5000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, span, err := decodeChunk(b)
		if err != nil {
			return
		}
		if span == 0 || span > maxSpan || m.count() == 0 || m.next(0, span, true) == span {
			t.Fatal("decoded to nothing")
		}
		if !bytes.Equal(encodeChunk(nil, m, span), b) {
			t.Fatal("one set has two encodings")
		}
	})
}

func BenchmarkChunk(b *testing.B) {
	m := newBitmap(minSpan)
	scattered(.1, 1)(rand.New(rand.NewPCG(1, 2)), m, minSpan)
	code := encodeChunk(nil, m, minSpan)
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			code = encodeChunk(code[:0], m, minSpan)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := decodeChunk(code); err != nil {
				b.Fatal(err)
			}
		}
	})
}
