package directory

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
)

// Limits of what is remembered of lies.
const (
	maxLies    = 32   // kinds, of one sender
	maxLie     = 64   // bytes of a kind's name
	maxStruck  = 1024 // devices
	maxLastSet = 256  // records of one sender that are told apart
)

// strikes is what a sender has made up.
type strikes struct {
	Count int            `json:"count"`
	Lies  map[string]int `json:"lies,omitempty"`
	// last are records that were counted: a record that is offered again is the same lie.
	last map[Hash]struct{}
}

// Strikes returns how often each device has sent something that it must have made up: a wrong signature, a transfer against the
// rules, a number from the future. What merely came too early doesn't count. After a crash up to half of a count
// may be forgotten. The map is the caller's.
func (d *Directory) Strikes() map[string]int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	m := make(map[string]int, len(d.strikes))
	for from, s := range d.strikes {
		m[from] = s.Count
	}
	return m
}

// Strike counts a lie of a kind (a few words, always the same) against a member that sent it: one in a message, that no record
// shows. The first of its kind is logged.
func (d *Directory) Strike(from, lie string, cause error) {
	d.write.Lock()
	defer d.write.Unlock()
	d.strike(from, lie, cause)
}

// struck counts a rejected record against its sender, if nobody honest can have sent it.
func (d *Directory) struck(from string, r Record, err error) {
	lie := lieOf(err)
	if lie == "" || !d.isMember(from) || from == d.opt.Self {
		return
	}
	h := r.hash()
	if s := d.strikes[from]; s != nil {
		if _, again := s.last[h]; again {
			return
		}
	}
	d.strike(from, lie, err)
	if s := d.strikes[from]; s != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if s.last == nil || len(s.last) >= maxLastSet {
			s.last = map[Hash]struct{}{}
		}
		s.last[h] = struct{}{}
	}
}

// lieOf names the lie that an error of Apply shows, or "" if it may be none.
func lieOf(err error) string {
	switch {
	case errors.Is(err, errSame), errors.Is(err, ErrVersion), errors.Is(err, ErrGap), errors.Is(err, ErrFork):
		return ""
	case errors.Is(err, ErrSignature):
		return "wrong signature"
	case errors.Is(err, ErrFuture):
		return "number from the future"
	case errors.Is(err, ErrChain):
		return "transfer against the rules"
	case errors.Is(err, ErrNotOwner):
		return "not the owner's word"
	case errors.Is(err, ErrLie):
		return "contradiction in itself"
	case errors.Is(err, ErrInvalid):
		return "malformed record"
	}
	return ""
}

func (d *Directory) strike(from, lie string, cause error) {
	if d.closed || !d.isMember(from) || len(lie) > maxLie || len(d.strikes) >= maxStruck && d.strikes[from] == nil {
		return
	}
	d.mu.Lock()
	s := d.strikes[from]
	if s == nil {
		s = &strikes{Lies: map[string]int{}}
		d.strikes[from] = s
	}
	_, known := s.Lies[lie]
	if !known && len(s.Lies) >= maxLies {
		known, lie = true, "others"
	}
	s.Count++
	s.Lies[lie]++
	b, err := encodeValue(strikes{Count: s.Count, Lies: maps.Clone(s.Lies)})
	d.mu.Unlock()
	if !known {
		d.log.Warn("A device sent what it must have made up", "device", from, "lie", lie, "error", cause)
	}
	if bits.OnesCount(uint(s.Count)) != 1 && known {
		return // a sync for each would help the liar
	}
	if err == nil {
		err = d.store.Commit(map[string][]byte{"local/strikes/" + from: b})
	}
	if err != nil {
		d.log.Warn("Remembering a device's lie failed", "device", from, "error", err)
	}
}

func (d *Directory) rememberStrikes(from string, value []byte) error {
	s, err := decodeValue[strikes](value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if s.Lies == nil {
		s.Lies = map[string]int{}
	}
	d.strikes[from] = &s
	return nil
}
