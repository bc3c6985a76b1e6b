package records

import (
	"errors"
	"fmt"
)

// Report is what a look at the whole ring found.
type Report struct {
	Records int    // whole records in place
	Last    uint64 // the newest record of the unbroken sequence
	Durable uint64 // the newest record that is known durable
	Lost    int    // records that must be there and aren't
	Bad     int    // blocks that hold something that was never written there
	First   string // the first finding in words, empty if there is none
}

// OK says that nothing was lost and nothing is wrong.
func (p Report) OK() bool { return p.Lost == 0 && p.Bad == 0 }

func (p *Report) note(format string, args ...any) {
	if p.First == "" {
		p.First = fmt.Sprintf(format, args...)
	}
}

// Recover reads the ring as a crash or a clean stop left it, says what is
// missing of what had to survive, removes what came after the unbroken
// sequence, and sets the ring to go on from there. Records written but not
// synced may be there or not, in any choice: that is no loss.
func (r *Ring) Recover() (Report, error) {
	var p Report
	var torn []int // slots with neither a record nor nothing
	found := make([]Record, r.slots)
	var readErr error
	r.scan(func(slot int, b []byte, err error) {
		if err != nil {
			readErr = errors.Join(readErr, err)
			return
		}
		rec, err := Decode(b)
		switch {
		case errors.Is(err, ErrEmpty):
		case err != nil, rec.Seq == 0, r.slotOf(rec.Seq) != slot, rec.Durable >= rec.Seq:
			torn = append(torn, slot)
		default:
			found[slot] = rec
			p.Durable = max(p.Durable, rec.Durable)
		}
	})
	if readErr != nil {
		return p, fmt.Errorf("recover ring: %w", readErr)
	}

	// A flush's number reaches the disk only with the next record, so the
	// writer may have been one unsynced stretch beyond p.Durable, and another
	// one beyond that flush: older records within that reach may be replaced.
	first := uint64(1)
	if reach := p.Durable + 2*MaxUnsynced; reach > uint64(r.slots) {
		first = reach - uint64(r.slots) + 1
	}
	for seq := first; seq <= p.Durable; seq++ {
		if found[r.slotOf(seq)].Seq != seq {
			p.Lost++
			p.note("record %d is lost, its slot holds %d", seq, found[r.slotOf(seq)].Seq)
		}
	}
	p.Last = p.Durable
	for found[r.slotOf(p.Last+1)].Seq == p.Last+1 {
		p.Last++
	}
	p.Bad = r.countDamage(torn, p.Durable, &p)

	// What was read may still be in the disk's own cache only.
	for i := range r.dirty {
		r.dirty[i] = true
	}
	if err := r.wipe(found, torn, p.Last); err != nil {
		return p, err
	}
	for _, rec := range found {
		if rec.Seq != 0 {
			p.Records++
		}
	}
	r.shadow, r.last, r.durable = found, p.Last, p.Last
	return p, nil
}

// countDamage counts the torn slots that no unfinished write explains: only
// records just after durable can have been caught half-way.
func (r *Ring) countDamage(torn []int, durable uint64, p *Report) int {
	n := 0
	for _, slot := range torn {
		ahead := (uint64(slot) + uint64(r.slots) - (durable+1)%uint64(r.slots)) % uint64(r.slots)
		if ahead >= 2*MaxUnsynced {
			n++
			p.note("slot %d is damaged", slot)
		}
	}
	return n
}

// wipe clears torn slots and records after last, so that no later crash can
// take them for part of the sequence.
func (r *Ring) wipe(found []Record, torn []int, last uint64) error {
	slots := torn
	for slot, rec := range found {
		if rec.Seq > last {
			found[slot] = Record{}
			slots = append(slots, slot)
		}
	}
	for _, slot := range slots {
		if err := r.write(slot, zeroes[:]); err != nil {
			return fmt.Errorf("wipe slot %d: %w", slot, err)
		}
	}
	if _, err := r.Sync(); err != nil {
		return fmt.Errorf("wipe after the sequence: %w", err)
	}
	return nil
}

// Verify reads every slot and compares it with what memory knows. It syncs
// first; the caller then drops the page cache by drop, else Verify would look
// at memory only. It returns an error only if it could not look.
func (r *Ring) Verify(drop func() error) (Report, error) {
	p := Report{Last: r.last}
	if _, err := r.Sync(); err != nil {
		return p, fmt.Errorf("verify ring: %w", err)
	}
	p.Durable = r.durable
	if err := drop(); err != nil {
		return p, fmt.Errorf("verify ring: drop caches: %w", err)
	}
	scratch := make([]byte, Size)
	r.scan(func(slot int, b []byte, err error) {
		want := r.shadow[slot]
		switch {
		case err != nil:
			p.Bad++
			p.note("slot %d cannot be read: %v", slot, err)
		case want.Seq == 0:
			if !allZero(b) {
				p.Bad++
				p.note("slot %d should be empty", slot)
			}
		case want.matches(b, scratch):
			p.Records++
		default:
			r.classify(slot, b, want, &p)
		}
	})
	r.checkShadow(&p)
	return p, nil
}

// classify counts a slot that isn't what memory knows: as lost if the disk
// holds an older record or none, else as bad.
func (r *Ring) classify(slot int, b []byte, want Record, p *Report) {
	got, err := Decode(b)
	if errors.Is(err, ErrEmpty) || err == nil && got.Seq < want.Seq {
		p.Lost++
		p.note("record %d is lost, its slot holds %d", want.Seq, got.Seq)
		return
	}
	p.Bad++
	if err != nil {
		p.note("record %d: %v", want.Seq, err)
		return
	}
	p.note("record %d of run %x: the disk holds %d of run %x", want.Seq, want.Run, got.Seq, got.Run)
}

// checkShadow makes sure that memory itself is whole: the newest records follow
// each other without a gap.
func (r *Ring) checkShadow(p *Report) {
	n := min(r.last, uint64(r.slots)-2*MaxUnsynced)
	for seq := r.last - n + 1; seq <= r.last; seq++ {
		rec := r.shadow[r.slotOf(seq)]
		if rec.Seq != seq {
			p.Bad++
			p.note("memory has record %d in the place of %d", rec.Seq, seq)
		}
	}
}
