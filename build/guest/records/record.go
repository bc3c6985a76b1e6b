// Package records is the disk witness of the test guest: a ring of
// sequence-numbered, checksummed records that tells afterwards whether a disk
// kept everything it promised to keep.
//
// What it guarantees: a record that Decode accepts was written whole by Encode;
// after Ring.Sync returned, Ring.Recover on the same files reports every record
// up to that moment, or counts it as lost; Ring.Verify compares each record
// with what memory remembers of it, so a disk and a memory from different
// moments do not pass for a pair.
//
// What it does not: it does not find its own files (the caller opens them), it
// does not bypass the page cache (the caller drops it before Verify), and after
// a crash it cannot know of a flush whose number never reached the disk; who
// watched the guest's console knows.
//
// Test it with: go test ./build/guest/records/
package records

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Size is the length of an encoded record in bytes: one block.
const Size = 4096

// The layout of a record, little endian:
//
//	0     magic and version (8 bytes)
//	8     sequence number
//	16    run
//	24    durable
//	32    wall clock
//	40    payload, derived from run and sequence number
//	4092  CRC-32C of all before it
const (
	offSeq     = 8
	offRun     = 16
	offDurable = 24
	offWall    = 32
	offPayload = 40
	offSum     = Size - 4
)

// magic ends in the format's version.
const magic = "TAGREC\x00\x01"

// What Decode and Open may answer.
var (
	// ErrEmpty says that the block was never written (all zeroes).
	ErrEmpty = errors.New("empty block")
	// ErrForeign says that the block holds something else than a record of
	// this version.
	ErrForeign = errors.New("not a record")
	// ErrChecksum says that the block is a record in part only.
	ErrChecksum = errors.New("record checksum mismatch")
	// ErrPayload says that the payload isn't the one of this run and number.
	ErrPayload = errors.New("record payload mismatch")
	// ErrGeometry says that files and slots cannot make a ring.
	ErrGeometry = errors.New("ring geometry")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is what a block says; the payload follows from Run and Seq.
type Record struct {
	Seq     uint64 // from 1, without gaps, over all runs
	Run     uint64 // which start of the guest wrote it
	Durable uint64 // the highest number known durable when this was written
	Wall    int64  // the guest's wall clock, microseconds since 1970
}

// Encode writes the record into dst, which must hold Size bytes; the caller
// keeps dst.
func (r Record) Encode(dst []byte) {
	b := dst[:Size]
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[offSeq:], r.Seq)
	binary.LittleEndian.PutUint64(b[offRun:], r.Run)
	binary.LittleEndian.PutUint64(b[offDurable:], r.Durable)
	binary.LittleEndian.PutUint64(b[offWall:], uint64(r.Wall))
	x := seed(r.Run, r.Seq)
	i := offPayload
	for ; i+8 <= offSum; i += 8 {
		x = next(x)
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	clear(b[i:offSum])
	binary.LittleEndian.PutUint32(b[offSum:], crc32.Checksum(b[:offSum], castagnoli))
}

// Decode reads a record from src, which it doesn't keep. Any bytes are allowed;
// what is not a whole record gets ErrEmpty, ErrForeign, ErrChecksum or
// ErrPayload.
func Decode(src []byte) (Record, error) {
	if len(src) < Size {
		return Record{}, ErrForeign
	}
	b := src[:Size]
	if string(b[:len(magic)]) != magic {
		if allZero(b) {
			return Record{}, ErrEmpty
		}
		return Record{}, ErrForeign
	}
	if binary.LittleEndian.Uint32(b[offSum:]) != crc32.Checksum(b[:offSum], castagnoli) {
		return Record{}, ErrChecksum
	}
	r := Record{
		Seq:     binary.LittleEndian.Uint64(b[offSeq:]),
		Run:     binary.LittleEndian.Uint64(b[offRun:]),
		Durable: binary.LittleEndian.Uint64(b[offDurable:]),
		Wall:    int64(binary.LittleEndian.Uint64(b[offWall:])),
	}
	if binary.LittleEndian.Uint64(b[offPayload:]) != next(seed(r.Run, r.Seq)) {
		return Record{}, ErrPayload
	}
	return r, nil
}

// matches says whether b is exactly the encoding of r, using scratch for it.
func (r Record) matches(b, scratch []byte) bool {
	r.Encode(scratch)
	return bytes.Equal(b[:Size], scratch[:Size])
}

// seed mixes run and sequence number, so that neighbours share no payload.
func seed(run, seq uint64) uint64 {
	x := run ^ (seq+1)*0x9e3779b97f4a7c15
	x ^= x >> 31
	return x*0xbf58476d1ce4e5b9 | 1
}

// next is one step of xorshift64.
func next(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}

// zeroes is what a block holds that was never written.
var zeroes [Size]byte

func allZero(b []byte) bool { return bytes.Equal(b, zeroes[:len(b)]) }
