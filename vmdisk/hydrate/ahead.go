package hydrate

import "slices"

const (
	// streams is how many sequential readers are told apart.
	streams = 8
	// skip is how far a reader may jump ahead, in blocks, and still be the same one: requests overtake each other.
	skip = 32
	// mostGuess is how much of what follows is fetched for a reader of whom nothing is known yet, in blocks.
	mostGuess = 64 << 10 / Block
	// leastAhead and mostAhead bound what is fetched for one who reads on in sequence, in blocks.
	leastAhead = 256 << 10 / Block
	mostAhead  = 32 << 20 / Block
)

// reader is one who may be reading in sequence.
type reader struct {
	next   int64 // the block after the last that was read
	end    int64 // what follows is fetched up to here
	window int64 // blocks beyond next
	on     bool  // it did go on
}

// ahead tells sequential readers from random ones, and says what follows for each: what is fetched grows while somebody reads on, and for
// those who only just came it shrinks as long as few go on. Not safe for concurrent use.
type ahead struct {
	readers []*reader // who read last comes first
	guess   int64
	most    int64 // blocks beyond a reader: what is on its way in time
}

func newAhead() ahead { return ahead{guess: mostGuess, most: leastAhead} }

// read notes a read of the blocks [a, b).
func (h *ahead) read(a, b int64) {
	i := slices.IndexFunc(h.readers, func(r *reader) bool { return r.end-r.window <= a+skip && a <= r.next+skip })
	if i < 0 {
		h.begin(a, b)
		return
	}
	r := h.readers[i]
	copy(h.readers[1:i+1], h.readers[:i])
	h.readers[0] = r
	if b <= r.next {
		return // once more, or overtaken
	}
	r.next = b
	if !r.on {
		r.on = true
		h.guess = min(mostGuess, max(1, 2*h.guess))
	}
	if r.next+r.window/2 >= r.end {
		r.window = max(leastAhead/4, min(2*r.window, h.most))
		r.end = r.next + r.window
	}
}

// begin takes up somebody new, in place of who has read nothing for the longest time.
func (h *ahead) begin(a, b int64) {
	if len(h.readers) == streams {
		if !h.readers[streams-1].on {
			h.guess /= 2
		}
		h.readers = h.readers[:streams-1]
	}
	h.readers = slices.Insert(h.readers, 0, &reader{next: b, end: b + h.guess, window: h.guess})
}

// reach says how much is on its way in time, in bytes: what is asked for twice that far ahead is here when it is wanted.
func (h *ahead) reach(n int64) { h.most = max(leastAhead, min(mostAhead, 2*n/Block)) }
