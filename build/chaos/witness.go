//go:build linux

package chaos

import (
	"slices"

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
