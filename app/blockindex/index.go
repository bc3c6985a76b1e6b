// Package blockindex finds blocks by their content on this device's own disks, so that a push needn't bring what is here already: a file that was
// moved, or a VM that was cloned from another. It is what a receiver lends to package push as its Index.
//
// What it knows it has seen go by (Learn): what a disk reads of itself to record its hashes, or to scrub, and what pushes bring. Nothing is read
// for the index alone.
//
// What it says is never trusted: a block is read where it was seen, and counts only if its hash is the one that was asked for. So the index may be old, wrong
// or gone: that costs bytes on the line, nothing else.
//
// Memory: 12 MiB, whatever the disks' sizes (Slots entries of 12 bytes; nothing before the first is learned). All of 4 GiB of different blocks fit; of more, each
// keeps its place with a chance of 4 GiB to all that was seen, as the newer overwrites the older: of 1 TiB every 256th block is found by itself. What lies
// behind it is found all the same: after a block that was found the next one is looked for right behind it. So a moved file is found from some place
// on, on average after its first MiB on a disk of 1 TiB, and small files there mostly aren't.
//
// Methods may be called from any goroutine, but those of one Look.
//
// To test: go test ./app/blockindex
package blockindex

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"github.com/zeebo/blake3"
)

// Block is the unit of content in bytes.
const Block = 4096

// Slots is how many blocks are known at most.
const Slots = 1 << 20

// slot is where a block was seen: on disks[disk-1]; disk 0 is none.
type slot struct {
	tag  uint32
	disk uint16
	hi   uint16
	lo   uint32
}

func (s slot) block() int64 { return int64(s.hi)<<32 | int64(s.lo) }

// Index is what is known. The zero value knows nothing, and is ready.
type Index struct {
	mu    sync.Mutex
	disks []string
	slots []slot // nil before anything is learned
	newer bool   // than what is kept

	asked, found float64 // of the latest questions
	passed       int     // streams that had no use for it
}

const (
	// fewest is how many questions must have been asked before they count.
	fewest = 4096
	// latest is after how many of them the older ones count half.
	latest = 1 << 16
	// worthwhile is the part that must have been found: a question takes 32 bytes, a block that is found saves at least some 1500.
	worthwhile = 1.0 / 40
	// tryEvery is after how many streams it is asked all the same.
	tryEvery = 16
	maxDisks = math.MaxUint16
)

// place is the slot of a block with that hash, and what says that it is that block's.
func place(sum [32]byte) (at uint32, tag uint32) {
	return binary.LittleEndian.Uint32(sum[:]) % Slots, binary.LittleEndian.Uint32(sum[4:])
}

// Learn says that the disk has p at off: whole blocks. Zeros aren't worth knowing. p is the caller's again afterwards.
func (x *Index) Learn(disk string, off int64, p []byte) {
	for ; len(p) >= Block; off, p = off+Block, p[Block:] {
		if b := p[:Block]; string(b) != string(zeros[:]) {
			x.learn(disk, off/Block, blake3.Sum256(b))
		}
	}
}

var zeros [Block]byte

func (x *Index) learn(disk string, block int64, sum [32]byte) {
	at, tag := place(sum)
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.Index(x.disks, disk)
	if i < 0 {
		if len(x.disks) == maxDisks || len(disk) > maxName {
			return
		}
		i = len(x.disks)
		x.disks = append(x.disks, disk)
	}
	if x.slots == nil {
		x.slots = make([]slot, Slots)
	}
	x.slots[at], x.newer = slot{tag, uint16(i + 1), uint16(block >> 32), uint32(block)}, true
}

// seen is where a block with that hash may be.
func (x *Index) seen(sum [32]byte) (where spot, ok bool) {
	at, tag := place(sum)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.slots == nil {
		return spot{}, false
	}
	s := x.slots[at]
	if s.disk == 0 || s.tag != tag {
		return spot{}, false
	}
	return spot{x.disks[s.disk-1], s.block()}, true
}

// spot is a block of a disk.
type spot struct {
	disk  string
	block int64
}

// Read reads what a disk has at off, in whole blocks, without waiting for anything; an error is that it has nothing there.
type Read func(disk string, p []byte, off int64) error

// Look is one stream's use of the index.
type Look struct {
	x    *Index
	read Read
	next spot // behind what was found last
	buf  [Block]byte

	asked, found float64
}

// Look begins to look for a stream's blocks. It is nil if that isn't likely to be worth it: the index is empty, or hardly anything was found
// lately. anew says that the stream brings a disk that isn't here at all. It must be closed.
func (x *Index) Look(anew bool, read Read) *Look {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.slots == nil {
		return nil
	}
	if !anew && x.asked >= fewest && x.found < x.asked*worthwhile {
		if x.passed++; x.passed%tryEvery != 0 {
			return nil
		}
	}
	return &Look{x: x, read: read}
}

// Have returns a block with that hash; it is valid until the next call.
func (l *Look) Have(sum [32]byte) (data []byte, ok bool) {
	l.asked++
	if l.next.disk != "" && l.is(l.next, sum) {
		return l.took()
	}
	at, ok := l.x.seen(sum)
	if !ok || !l.is(at, sum) {
		return nil, false
	}
	return l.took()
}

// is reads a block, and says whether it is the one.
func (l *Look) is(at spot, sum [32]byte) bool {
	if l.read(at.disk, l.buf[:], at.block*Block) != nil || blake3.Sum256(l.buf[:]) != sum {
		return false
	}
	l.next = spot{at.disk, at.block + 1}
	return true
}

func (l *Look) took() ([]byte, bool) {
	l.found++
	return l.buf[:], true
}

// Close ends the look. A nil one may be closed.
func (l *Look) Close() {
	if l == nil {
		return
	}
	x := l.x
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked, x.found = x.asked+l.asked, x.found+l.found
	for x.asked > latest {
		x.asked, x.found = x.asked/2, x.found/2
	}
}
