package vmdisk

const (
	// aheadOps and aheadBytes are how much leaves the queue at once at most.
	aheadOps   = 32
	aheadBytes = 256 << 10
)

// ahead is what has left a feed's queue, or was copied, and Next hasn't returned yet: so that the feeds of several peers, and the guest that writes, don't meet at
// Store.mu once for each small write. To the feed it is sent. It belongs to who has the feed's turn.
type ahead struct {
	ops []*Op
	at  int // of the next
}

// next takes the next operation; nil if there is none. Once done is closed there is none, and what there was is released.
func (a *ahead) next(done <-chan struct{}) *Op {
	if a.at == len(a.ops) {
		return nil
	}
	select {
	case <-done:
		for _, op := range a.ops[a.at:] {
			op.Release()
		}
		a.clear()
		return nil
	default:
	}
	op := a.ops[a.at]
	if a.at++; a.at == len(a.ops) {
		a.clear()
	}
	return op
}

func (a *ahead) clear() {
	clear(a.ops)
	a.ops, a.at = a.ops[:0], 0
}

// popAhead takes the writes that follow what was just popped, if they may leave now. A barrier stays: whether that may leave is to be asked
// when it is its turn. The caller holds d.mu and the turn.
func (f *Feed) popAhead() {
	if !f.p.todo.Empty() {
		return // what is still to be copied takes turns with the queue
	}
	for left := int64(aheadBytes); len(f.ahead.ops) < aheadOps; {
		op := f.queue.head()
		if op == nil || op.Kind == OpBarrier || op.cost() > left || f.rest() > 0 {
			return
		}
		left -= op.cost()
		f.ahead.ops = append(f.ahead.ops, f.pop())
	}
}
