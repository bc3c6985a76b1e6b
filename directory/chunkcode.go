package directory

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// A chunk of a stale set is a set of the blocks [0, span), never empty. Its encoding says so by itself, and one set has exactly one:
//
//	byte 0   how: 1 full, 2 blocks, 3 runs, 4 bitmap
//	uvarint  span, 1 to maxSpan
//	full:    nothing more
//	blocks:  uvarint count, byte k, then of each block how many there are between it and the one before, in class code k
//	runs:    uvarint count of runs, byte j, byte k, then of each run how many blocks are before it (after the first: one less) in class
//	         code j, and its length less one in class code k
//	bitmap:  ceil(span/8) bytes, the first block is the lowest bit of the first
//
// Class code k writes a number of L significant bits as the class c = max(0, L-k), c ones and a zero, and then its lowest k bits if c is
// 0, or else its lowest L-1. Bits fill bytes from the lowest up; what is left of the last byte is zero. It is within 5 % of what can be
// had for scattered blocks, and, unlike better ones, good too at the mixture of short and very long runs that file systems make.
//
// Of the ways that a set can be written in, its encoding is the shortest, the first of equals: the decoder encodes what it read and
// refuses anything else. (A compressor's output would depend on its version.)
const (
	chunkFull   = 1
	chunkBlocks = 2
	chunkRuns   = 3
	chunkBitmap = 4

	minSpan  = 1 << 18 // blocks of a chunk
	maxSpan  = 1 << 20
	maxClass = 20 // of a k: beyond it, all is class 0

	// MaxChunk is the largest encoding of a chunk, in bytes.
	MaxChunk = maxSpan/8 + 4
)

// bitmap is a set of blocks, 64 a word.
type bitmap []uint64

func newBitmap(span uint32) bitmap { return make(bitmap, (span+63)/64) }

// add adds the blocks [a, b).
func (m bitmap) add(a, b uint32) {
	for a < b {
		end := min(b, a|63+1)
		m[a/64] |= (^uint64(0) >> (64 - (end - a))) << (a % 64)
		a = end
	}
}

// next is the first block from x on that is in the set (or, if !in, isn't), or span.
func (m bitmap) next(x, span uint32, in bool) uint32 {
	for x < span {
		w := m[x/64]
		if !in {
			w = ^w
		}
		if w >>= x % 64; w != 0 {
			return min(x+uint32(bits.TrailingZeros64(w)), span)
		}
		x = x | 63 + 1
	}
	return span
}

// runs calls fn for each run [a, b) until it returns false.
func (m bitmap) runs(span uint32, fn func(a, b uint32) bool) {
	for a := m.next(0, span, true); a < span; {
		b := m.next(a, span, false)
		if !fn(a, b) {
			return
		}
		a = m.next(b, span, true)
	}
}

// classes counts numbers by their significant bits.
type classes [33]int

// best is the k whose class code is shortest, and the bits that the numbers take in it.
func (c *classes) best() (k, size int) {
	for try := range maxClass + 1 {
		n := 0
		for l, count := range c {
			if l <= try {
				n += count * (1 + try)
			} else {
				n += count * (l - try + l)
			}
		}
		if try == 0 || n < size {
			k, size = try, n
		}
	}
	return k, size
}

// encodeChunk appends the encoding of m, whose bits from span on are zero. An empty m has none: b comes back as it was.
func encodeChunk(b []byte, m bitmap, span uint32) []byte {
	var gaps, between, lengths classes
	var count, runs int
	var last uint32
	m.runs(span, func(x, y uint32) bool {
		gap := x - last
		gaps[bits.Len32(gap)]++
		gaps[0] += int(y - x - 1)
		if runs > 0 {
			gap--
		}
		between[bits.Len32(gap)]++
		lengths[bits.Len32(y-x-1)]++
		count, runs, last = count+int(y-x), runs+1, y
		return true
	})
	switch count {
	case 0:
		return b
	case int(span):
		return binary.AppendUvarint(append(b, chunkFull), uint64(span))
	}
	k, size := gaps.best()
	how, size := byte(chunkBlocks), uvarintLen(count)+1+(size+7)/8
	kb, nb := between.best()
	kl, nl := lengths.best()
	if n := uvarintLen(runs) + 2 + (nb+nl+7)/8; n < size {
		how, size = chunkRuns, n
	}
	if n := int(span+7) / 8; n < size {
		how = chunkBitmap
	}
	b = binary.AppendUvarint(append(b, how), uint64(span))
	switch how {
	case chunkBlocks:
		w := bitWriter{b: append(binary.AppendUvarint(b, uint64(count)), byte(k))}
		last = 0
		m.runs(span, func(x, y uint32) bool {
			w.class(x-last, k)
			for range y - x - 1 {
				w.class(0, k)
			}
			last = y
			return true
		})
		return w.end()
	case chunkRuns:
		w := bitWriter{b: append(binary.AppendUvarint(b, uint64(runs)), byte(kb), byte(kl))}
		last = 0
		m.runs(span, func(x, y uint32) bool {
			w.class(x-last, kb)
			w.class(y-x-1, kl)
			last = y + 1
			return true
		})
		return w.end()
	}
	at := len(b)
	for _, word := range m {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	return b[:at+int(span+7)/8]
}

// decodeChunk reads an encoding, and refuses all but the one that its set has. Errors: ErrInvalid.
func decodeChunk(b []byte) (m bitmap, span uint32, err error) {
	if m, span, err = parseChunk(b); err != nil {
		return nil, 0, err
	}
	if !bytes.Equal(encodeChunk(make([]byte, 0, len(b)+8), m, span), b) {
		return nil, 0, fmt.Errorf("chunk of %d bytes: not as it is written: %w", len(b), ErrInvalid)
	}
	return m, span, nil
}

// parseChunk is decodeChunk of what has been through it before.
func parseChunk(b []byte) (m bitmap, span uint32, err error) {
	fail := func(what string) (bitmap, uint32, error) {
		return nil, 0, fmt.Errorf("chunk of %d bytes: %s: %w", len(b), what, ErrInvalid)
	}
	if len(b) < 2 || len(b) > MaxChunk {
		return fail("length")
	}
	r := reader{b: b[1:]}
	span = r.uvarint(maxSpan)
	if span == 0 {
		return fail("span")
	}
	m = newBitmap(span)
	switch b[0] {
	case chunkFull:
		m.add(0, span)
	case chunkBlocks:
		count := r.uvarint(span)
		k := r.k()
		for at := uint32(0); count > 0 && !r.bad; count-- {
			at += r.class(k)
			if at >= span {
				return fail("beyond its span")
			}
			m[at/64] |= 1 << (at % 64)
			at++
		}
	case chunkRuns:
		count := r.uvarint(span)
		j, k := r.k(), r.k()
		for at := uint32(0); count > 0 && !r.bad; count-- {
			at += r.class(j)
			n := r.class(k) + 1
			if at > span || n > span-at {
				return fail("beyond its span")
			}
			m.add(at, at+n)
			at += n + 1
		}
	case chunkBitmap:
		if len(r.b) != int(span+7)/8 {
			return fail("length")
		}
		var word [8]byte
		for i := range m {
			clear(word[:])
			copy(word[:], r.b[8*i:])
			m[i] = binary.LittleEndian.Uint64(word[:])
		}
		if span%64 != 0 && m[len(m)-1]>>(span%64) != 0 {
			return fail("beyond its span")
		}
	default:
		return fail("unknown")
	}
	if r.bad {
		return fail("ends early, or has too big a number")
	}
	return m, span, nil
}

func (m bitmap) count() (n uint64) {
	for _, w := range m {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

func uvarintLen(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) }

// bitWriter appends bits to b.
type bitWriter struct {
	b    []byte
	acc  uint64
	held uint
}

// put writes the lowest n bits of v, at most 32; the others are zero.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.held
	if w.held += n; w.held >= 32 {
		w.b = binary.LittleEndian.AppendUint32(w.b, uint32(w.acc))
		w.acc, w.held = w.acc>>32, w.held-32
	}
}

func (w *bitWriter) class(v uint32, k int) {
	l := bits.Len32(v)
	if l <= k {
		w.put(uint64(v)<<1, uint(k)+1)
		return
	}
	c := uint(l - k)
	w.put(1<<c-1, c+1)
	w.put(uint64(v)&(1<<(l-1)-1), uint(l-1))
}

func (w *bitWriter) end() []byte {
	for ; w.held > 0; w.held -= min(w.held, 8) {
		w.b = append(w.b, byte(w.acc))
		w.acc >>= 8
	}
	return w.b
}

// reader takes numbers from b. After one that isn't there, or is too big, it is bad and all are 0.
type reader struct {
	b    []byte
	acc  uint64
	held uint
	bad  bool
}

func (r *reader) uvarint(limit uint32) uint32 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > uint64(limit) {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return uint32(v)
}

func (r *reader) k() int {
	if r.bad || len(r.b) == 0 || r.b[0] > maxClass {
		r.bad = true
		return 0
	}
	k := int(r.b[0])
	r.b = r.b[1:]
	return k
}

// fill holds at least 32 bits, with zeros after the end.
func (r *reader) fill() {
	if r.held >= 32 {
		return
	}
	if len(r.b) >= 4 {
		r.acc |= uint64(binary.LittleEndian.Uint32(r.b)) << r.held
		r.b, r.held = r.b[4:], r.held+32
		return
	}
	for r.held <= 56 && len(r.b) > 0 {
		r.acc |= uint64(r.b[0]) << r.held
		r.b, r.held = r.b[1:], r.held+8
	}
}

func (r *reader) take(n uint) uint32 {
	if r.bad || n > r.held {
		r.bad = true
		return 0
	}
	v := r.acc & (1<<n - 1)
	r.acc, r.held = r.acc>>n, r.held-n
	return uint32(v)
}

func (r *reader) class(k int) uint32 {
	r.fill()
	c := bits.TrailingZeros64(^r.acc)
	if r.take(uint(min(c, 32)) + 1); r.bad || c == 0 {
		return r.take(uint(k))
	}
	l := uint(c + k)
	if l > maxClass+1 {
		r.bad = true
		return 0
	}
	r.fill()
	return 1<<(l-1) | r.take(l-1)
}
