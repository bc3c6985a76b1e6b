package blockset

import (
	"encoding/binary"
	"math/bits"
)

// A packed chunk is kept as the gaps between its blocks, or as gaps and lengths of its runs where those are fewer, in Golomb-Rice
// codes (Rice and Plaunt, 1971): 4.8 bits for each block of a random tenth, where 4.7 is the least that there can be.
//
// It is: u8 1 if there are lengths, u8 parameter of the gaps, u8 parameter of the lengths, u8 0, u32 items; then, from the lowest
// bit on, for each item its gap, and its length less one. A number x with parameter k is x>>k ones, a zero, and the low k bits.

const (
	packHeader = 8
	// maxPacked is where packing stops to be worth it, in bytes.
	maxPacked = chunkWords * 8 * 3 / 4
)

// pack is the packed form of a chunk with n blocks, or nil if that is longer than maxPacked. It is in scratch.
func pack(w *words, n int64, scratch *[maxPacked + 16]byte) []byte {
	var runs int64
	var carry uint64
	for _, v := range w {
		runs += int64(bits.OnesCount64(v &^ (v<<1 | carry)))
		carry = v >> 63
	}
	items, lengths := n, 2*runs < n
	if lengths {
		items = runs
	}
	// 2.5 bits are less than any gap takes where that many are worth a try.
	if n == 0 || items*5/2 > maxPacked*8 {
		return nil
	}
	gapK, lenK := riceParameter(ChunkBlocks-n, items), riceParameter(n-items, items)
	if !lengths {
		lenK = 0
	}
	scratch[0], scratch[1], scratch[2], scratch[3] = 0, byte(gapK), byte(lenK), 0
	if lengths {
		scratch[0] = 1
	}
	binary.LittleEndian.PutUint32(scratch[4:], uint32(items))
	out := bitWriter{to: scratch[packHeader:]}
	last := int64(0)
	if lengths {
		for a := w.next(0, ChunkBlocks, true); a < ChunkBlocks; a = w.next(last, ChunkBlocks, true) {
			out.put(uint64(a-last), gapK)
			last = w.next(a, ChunkBlocks, false)
			out.put(uint64(last-a-1), lenK)
		}
	} else {
		for i, v := range w {
			for ; v != 0; v &= v - 1 {
				x := int64(i*64 + bits.TrailingZeros64(v))
				out.put(uint64(x-last), gapK)
				last = x + 1
			}
		}
	}
	if !out.end() {
		return nil
	}
	return scratch[:packHeader+out.n]
}

// riceParameter fits numbers with that sum.
func riceParameter(sum, items int64) uint { return uint(bits.Len64(uint64(sum * 69 / 100 / items))) }

// unpack is what pack packed.
func unpack(b []byte, w *words) {
	*w = words{}
	gapK, lenK, items := uint(b[1]), uint(b[2]), binary.LittleEndian.Uint32(b[4:])
	in := bitReader{from: b[packHeader:]}
	x := int64(0)
	if b[0] == 0 {
		low := uint64(1)<<gapK - 1
		for ; items > 0; items-- {
			in.fill()
			// What get does, where the number lies in what fill gave.
			if ones := uint(bits.TrailingZeros64(^in.acc)); ones+1+gapK <= in.have {
				acc := in.acc >> (ones + 1)
				x += int64(uint64(ones)<<gapK | acc&low)
				in.acc = acc >> gapK
				in.have -= ones + 1 + gapK
			} else {
				x += int64(in.get(gapK))
			}
			w[x/64%chunkWords] |= 1 << (x % 64)
			x++
		}
		return
	}
	for ; items > 0; items-- {
		x += int64(in.get(gapK))
		n := int64(in.get(lenK)) + 1
		w.fill(x, x+n)
		x += n
	}
}

// bitWriter writes from the lowest bit on, up to the end of to.
type bitWriter struct {
	to   []byte
	n    int
	acc  uint64
	have uint
	full bool
}

// put writes x with parameter k.
func (o *bitWriter) put(x uint64, k uint) {
	q := x >> k
	for ; q >= 32; q -= 32 {
		o.bits(1<<32-1, 32)
	}
	o.bits(1<<q-1, uint(q)+1)
	o.bits(x&(1<<k-1), k)
}

// bits writes the lowest n <= 33 bits of v, which has no others.
func (o *bitWriter) bits(v uint64, n uint) {
	if o.have+n > 64 {
		o.flush()
	}
	o.acc |= v << o.have
	o.have += n
}

// flush writes the whole bytes.
func (o *bitWriter) flush() {
	if o.n+8 > len(o.to) {
		o.full, o.acc, o.have = true, 0, 0
		return
	}
	binary.LittleEndian.PutUint64(o.to[o.n:], o.acc)
	whole := o.have / 8
	o.n += int(whole)
	o.acc >>= whole * 8
	o.have -= whole * 8
}

// end writes what is left, and says whether all had room.
func (o *bitWriter) end() bool {
	o.flush()
	if o.have > 0 && !o.full {
		o.n++ // flush has written it already
	}
	return !o.full && o.n+packHeader <= maxPacked
}

type bitReader struct {
	from []byte
	acc  uint64
	have uint
}

// fill makes sure that there are 32 bits, or all.
func (i *bitReader) fill() {
	if i.have < 32 {
		i.load()
	}
}

// load takes as many bytes as there is room for.
func (i *bitReader) load() {
	if len(i.from) >= 8 {
		i.acc |= binary.LittleEndian.Uint64(i.from) << i.have
		whole := (63 - i.have) / 8
		i.from = i.from[whole:]
		i.have += whole * 8
		return
	}
	for i.have <= 56 && len(i.from) > 0 {
		i.acc |= uint64(i.from[0]) << i.have
		i.from = i.from[1:]
		i.have += 8
	}
}

// get reads a number with parameter k.
func (i *bitReader) get(k uint) uint64 {
	i.fill()
	var q uint64
	for {
		ones := uint(bits.TrailingZeros64(^i.acc))
		if ones < i.have {
			q += uint64(ones)
			i.acc >>= ones + 1
			i.have -= ones + 1
			break
		}
		q += uint64(i.have)
		i.acc, i.have = 0, 0
		i.fill()
	}
	i.fill()
	v := i.acc & (1<<k - 1)
	i.acc >>= k
	i.have -= k
	return q<<k | v
}
