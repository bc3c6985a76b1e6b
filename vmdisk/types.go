package vmdisk

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	"tagalong.org/tagalong/vmdisk/throttle"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// Block is the unit of tracking and replication, in bytes.
const Block = 4096

// MaxSize is the largest disk, in bytes.
const MaxSize = int64(16) << 40

// MaxOp is the most data in one Op or one call of Applier.Write, in bytes.
const MaxOp = 1 << 20

// ID names a disk; all replicas of it have the same.
type ID [16]byte

// NewID is a fresh random ID.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // never fails: crypto/rand crashes the program instead
	return id
}

// String is the ID in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return ID{}, fmt.Errorf("disk ID %q: %w", s, ErrMalformed)
	}
	copy(id[:], b)
	return id, nil
}

// Position says how far a replica has come: a barrier of a term. The zero Position is a disk that
// never had an owner.
type Position struct {
	Term    uint64
	Barrier uint64
}

// Compare orders positions by term, then barrier.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Term, q.Term), cmp.Compare(p.Barrier, q.Barrier))
}

// String is "term/barrier".
func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Term, p.Barrier) }

// ReplicaState is what a replica says of itself when it attaches.
type ReplicaState struct {
	Disk ID
	Size int64 // bytes; 0: no smaller than its owner's disk
	// Complete says that the replica is the disk at Position. Otherwise Position is that of the
	// last checkpoint of the first copy named Copy.
	Complete bool
	Position Position
	// Copy names an unfinished copy, and is zero if there is none. If Complete, it is one that brings the replica up to date, and
	// Checkpoint is the position of its last checkpoint.
	Copy       [16]byte
	Checkpoint Position
}

// Turns says when much may be read of a disk in the background. Its methods may be called from any goroutine; Delay is called without a lock.
type Turns interface {
	// Delay is how long nothing should be read; then it is asked again. 0 is not at all.
	Delay() time.Duration
	// Took tells that n bytes were read, and how long that took.
	Took(n int64, d time.Duration)
}

// Options for opening a disk. The zero value is good.
type Options struct {
	// FS holds the disk's files; nil is the directory itself.
	FS vfs.FS
	// Reserve is how many bytes must stay free: a write that needs new space then gets syscall.ENOSPC.
	Reserve int64
	// QueueBytes bounds the memory of one peer's queue of writes; 0 is 64 MiB.
	QueueBytes int64
	// BarrierEvery is how old a write may get before the disk makes a barrier for its peers by itself; 0 is 1 s,
	// less is never. It makes one after 16 MiB, too.
	BarrierEvery time.Duration
	// MirrorEvery is how long after a barrier the next leaves for the same peer at the soonest, unless there is much to send, or somebody
	// waits for the peer; of the barriers meanwhile only the newest leaves. 0 is 5 ms, less is at once, and all of them.
	MirrorEvery time.Duration
	// SaveEvery is how often dirty sets are stored and the activity log is cleared; 0 is 30 s, less is never.
	SaveEvery time.Duration
	// EpochLogBytes is the size from which on a replica's epoch log is emptied; its file keeps a quarter more at most. 0 is 64 MiB.
	EpochLogBytes int64
	// Troubled, if not nil, is called with Info.NeedsCheck when the disk begins to need checking: not for the mark of an earlier
	// time, and not more than once until the mark is cleared. It may use the disk, but not close it.
	Troubled func(reason string)
	// Patience is how long a read of a stale block waits when nobody runs Hydrate, before it gets ErrStale; 0 is 10 s.
	Patience time.Duration
	// Background limits what this disk copies by itself, such as merging layers; nil is no limit.
	Background *throttle.Limit
	// Record paces the reading for the hashes that this disk records by itself of what has been quiet for some minutes (Scrub, Recorded); nil
	// is not to record any by itself.
	Record Pace
	// Copy lets others go before what brings peers up to date by reading much of this disk; nil is none. What is little, and what somebody waits for (Drain),
	// isn't held up.
	Copy Turns
	// Seen, if not nil, is shown what this disk reads of itself to record hashes, or to scrub: whole blocks at off. It must be quick, and p is its own only
	// while it runs. It may be called from several goroutines, and what it sees may have been overwritten by then.
	Seen func(off int64, p []byte)
	// Log gets what happens; nil is silence.
	Log *slog.Logger

	// attachBelow is how little must be left to be copied before writes are queued; checkpointEvery is how much of a first
	// copy is sent before the peer makes it durable. In bytes; 0 is the usual.
	attachBelow, checkpointEvery int64
	// now is what says how long a peer has been behind, and how old what it lacks is; nil is time.Now.
	now func() time.Time
	// mergeByHand leaves merging to who calls mergeBottom.
	mergeByHand bool
	// cutMemory is how much old content all open cuts together keep in memory before they use files; 0 is the usual.
	cutMemory int64
}

func (o Options) withDefaults(dir string) Options {
	if o.FS == nil {
		o.FS = vfs.OS(dir)
	}
	o.QueueBytes = cmp.Or(o.QueueBytes, 64<<20)
	o.BarrierEvery = cmp.Or(o.BarrierEvery, time.Second)
	o.MirrorEvery = cmp.Or(o.MirrorEvery, 5*time.Millisecond)
	o.SaveEvery = cmp.Or(o.SaveEvery, 30*time.Second)
	o.EpochLogBytes = cmp.Or(o.EpochLogBytes, 64<<20)
	o.attachBelow = cmp.Or(o.attachBelow, 4<<20)
	o.checkpointEvery = cmp.Or(o.checkpointEvery, 32<<20)
	o.cutMemory = cmp.Or(o.cutMemory, cutMemory)
	if o.now == nil {
		o.now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// checkSize tells whether a disk can have this size.
func checkSize(size int64) error {
	if size <= 0 || size > MaxSize || size%Block != 0 {
		return fmt.Errorf("disk of %d bytes: %w", size, ErrRange)
	}
	return nil
}

var zeroBlock [1 << 16]byte

// isZero says whether p is all zeros.
func isZero(p []byte) bool {
	for len(p) > len(zeroBlock) {
		if string(p[:len(zeroBlock)]) != string(zeroBlock[:]) {
			return false
		}
		p = p[len(zeroBlock):]
	}
	return string(p) == string(zeroBlock[:len(p)])
}
