package mirror

import "fmt"

// rules checks the owner's frames, one after the other; both ends apply it. Its
// errors wrap fault.
type rules struct {
	size  int64
	term  uint64
	fault error

	first    bool     // no frame so far
	complete bool     // the replica is the disk at some position
	copying  bool     // a copy has been begun, here or earlier
	last     Position // of the last barrier or checkpoint
	written  bool     // since then
}

func newRules(h Hello, s State, fault error) *rules {
	r := &rules{size: h.Size, term: h.Term, fault: fault, first: true, complete: s.Complete, copying: s.Copy != ID{}}
	if s.Complete {
		r.last = s.Position
	}
	return r
}

// span checks a range of the disk.
func (r *rules) span(what string, off, n int64) error {
	if off < 0 || n <= 0 || off%Block != 0 || n%Block != 0 || n > r.size || off > r.size-n {
		return fmt.Errorf("%s of %d bytes at %d on a disk of %d: %w", what, n, off, r.size, r.fault)
	}
	if !r.complete && !r.copying {
		return fmt.Errorf("%s before the first copy begins: %w", what, r.fault)
	}
	return nil
}

// check takes the next frame. maxWrite bounds a Write.
func (r *rules) check(f *frame, maxWrite int64) error {
	first := r.first
	r.first = false
	switch f.kind {
	case Begin:
		if !first && !r.complete || f.copy == [16]byte{} {
			return fmt.Errorf("copy begins out of place: %w", r.fault)
		}
		// The position that ends a copy must be another than the one before.
		r.copying, r.written = true, r.complete
		return nil
	case Write:
		r.written = true
		if f.len > maxWrite {
			return fmt.Errorf("write of %d bytes: %w", f.len, r.fault)
		}
		return r.span("write", f.off, f.len)
	case Zero:
		r.written = true
		return r.span("zeroing", f.off, f.len)
	case Checkpoint, Barrier:
		if f.pos.Term != r.term {
			return fmt.Errorf("position of term %d under term %d: %w", f.pos.Term, r.term, r.fault)
		}
		// An acknowledgement names a position. With writes in between, two of
		// the same could not be told apart.
		if c := f.pos.Compare(r.last); c < 0 || c == 0 && r.written {
			return fmt.Errorf("position %d/%d after %d/%d: %w", f.pos.Term, f.pos.Barrier, r.last.Term, r.last.Barrier, r.fault)
		}
		if !r.complete && !r.copying {
			return fmt.Errorf("position before the first copy begins: %w", r.fault)
		}
		if f.kind == Barrier {
			r.complete = true
		}
		r.last, r.written = f.pos, false
		return nil
	}
	return fmt.Errorf("frame type 0x%02x from the owner: %w", byte(f.kind), r.fault)
}
