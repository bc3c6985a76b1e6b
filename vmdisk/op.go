package vmdisk

// OpKind says what an Op does. The numbers are explicit so that they can be sent.
type OpKind uint8

// The kinds of operations.
const (
	OpWrite      OpKind = 1 // Off, Len, Data
	OpZero       OpKind = 2 // Off, Len
	OpBarrier    OpKind = 3 // Pos: everything before is the disk at Pos
	OpCheckpoint OpKind = 4 // Pos: everything before is to be made durable
	OpBegin      OpKind = 5 // Copy: a first copy starts
)

// Op is one operation for a peer. Data is valid until Release, and must not be changed.
type Op struct {
	Kind     OpKind
	Off, Len int64
	Data     []byte
	Pos      Position
	Copy     [16]byte

	buf   *buffer
	round *round // of a barrier: it may leave when the round has ended well
}

// opCost is the memory that an operation takes beside its data, in bytes.
const opCost = 256

func (o *Op) cost() int64 { return opCost + int64(len(o.Data)) }

// Release gives the operation's memory back. It must be called once; Data is invalid afterwards.
func (o *Op) Release() {
	if o.buf != nil {
		o.buf.release()
		o.buf, o.Data = nil, nil
	}
}
