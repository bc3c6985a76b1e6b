//go:build linux

package chaos

import (
	"fmt"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
)

// history is one line of the VM's life: another begins with each takeover, from what its taker had.
type history struct {
	number  int
	durable uint64   // the newest record that its guest was told durable
	samples []sample // oldest first
}

// sample says that what the owner has at a position holds all records up to one.
type sample struct {
	at      api.Position
	durable uint64
}

func before(p, q api.Position) bool {
	return p.Term < q.Term || p.Term == q.Term && p.Barrier < q.Barrier
}

// told notes that a guest was told of a durable record.
func (h *history) told(durable uint64) { h.durable = max(h.durable, durable) }

// covered notes that durable was told before the owner was seen at a position.
func (h *history) covered(at api.Position, durable uint64) {
	if n := len(h.samples); n > 0 && h.samples[n-1].at == at {
		h.samples[n-1].durable = max(h.samples[n-1].durable, durable)
		return
	}
	h.samples = append(h.samples, sample{at: at, durable: durable})
}

// by is the newest record that a copy at a position must have.
func (h *history) by(at api.Position) uint64 {
	var must uint64
	for _, s := range h.samples {
		if !before(at, s.at) {
			must = max(must, s.durable)
		}
	}
	return must
}

// fork is the history of one that took over with what it had at a position.
func (h *history) fork(number int, at api.Position) *history {
	must := h.by(at)
	kept := slices.DeleteFunc(slices.Clone(h.samples), func(s sample) bool { return before(at, s.at) })
	return &history{number: number, durable: must, samples: kept}
}

// stretch is what was heard of one guest on one PC.
type stretch struct {
	pc      string
	run     string // names the guest's start
	history int
	from    time.Duration // the first tick's arrival, since the beginning
	to      time.Duration // the last one's
	first   uint64
	last    uint64
}

// slack is how late a tick may be heard on a busy computer.
const slack = time.Second

// doubleRuns finds guests that ran twice, or beside each other in one history.
func doubleRuns(all []stretch) error {
	for i, a := range all {
		for _, b := range all[i+1:] {
			switch {
			case a.run == b.run && a.first <= b.last && b.first <= a.last:
				return fmt.Errorf("the guest %s ran twice: ticks %d to %d on %s, %d to %d on %s", a.run, a.first, a.last, a.pc, b.first, b.last, b.pc)
			case a.run != b.run && a.history == b.history && a.from+slack < b.to && b.from+slack < a.to:
				return fmt.Errorf("two guests of one history ran at once: %s on %s from %.1fs to %.1fs, %s on %s from %.1fs to %.1fs",
					a.run, a.pc, a.from.Seconds(), a.to.Seconds(), b.run, b.pc, b.from.Seconds(), b.to.Seconds())
			}
		}
	}
	return nil
}
