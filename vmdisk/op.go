package vmdisk

import "iter"

// OpKind says what an Op does. The numbers are explicit so that they can be sent.
type OpKind uint8

// The kinds of operations.
const (
	OpWrite      OpKind = 1 // Off, Len, Data
	OpZero       OpKind = 2 // Off, Len
	OpBarrier    OpKind = 3 // Pos: everything before is the disk at Pos
	OpCheckpoint OpKind = 4 // Pos: everything before is to be made durable
	OpBegin      OpKind = 5 // Copy: a copy starts, or goes on
)

// Op is one operation for a peer. It is valid until Release, and must not be changed.
type Op struct {
	Kind     OpKind
	Off, Len int64
	Data     []byte
	Pos      Position
	Copy     [16]byte

	buf   *buffer // of a write: what the operation is part of
	round *round  // of a barrier: it may leave when the round has ended well
}

// opCost is the memory that an operation takes beside its data, in bytes.
const opCost = 256

func (o *Op) cost() int64 { return opCost + int64(len(o.Data)) }

// Release gives the operation's memory back. It must be called once; nothing of the operation is valid afterwards.
func (o *Op) Release() {
	if o.buf != nil {
		o.buf.release()
	}
}

// opQueue is a queue of operations that keeps its memory. Not safe for concurrent use.
type opQueue struct {
	ring []*Op // its length is a power of two
	at   int   // of the head
	n    int
}

func (q *opQueue) push(op *Op) {
	if q.n == len(q.ring) {
		ring := make([]*Op, max(64, 2*q.n))
		for i, op := range q.all() {
			ring[i] = op
		}
		q.ring, q.at = ring, 0
	}
	q.ring[(q.at+q.n)&(len(q.ring)-1)] = op
	q.n++
}

// head is what pop returns next, or nil.
func (q *opQueue) head() *Op {
	if q.n == 0 {
		return nil
	}
	return q.ring[q.at]
}

// pop takes the head of a queue that isn't empty.
func (q *opQueue) pop() *Op {
	op := q.ring[q.at]
	q.ring[q.at] = nil
	q.at = (q.at + 1) & (len(q.ring) - 1)
	q.n--
	return op
}

// all are the operations in order, with their place.
func (q *opQueue) all() iter.Seq2[int, *Op] {
	return func(yield func(int, *Op) bool) {
		for i := range q.n {
			if !yield(i, q.ring[(q.at+i)&(len(q.ring)-1)]) {
				return
			}
		}
	}
}

// has says whether the barrier of r is in the queue.
func (q *opQueue) has(r *round) bool {
	for _, op := range q.all() {
		if op.round == r {
			return true
		}
	}
	return false
}
