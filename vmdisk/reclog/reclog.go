// Package reclog is the form in which the journals of package vmdisk keep their records: numbered, checksummed, appended.
//
// It tells a torn end, which a crash leaves and which is dropped, from damage, which is an error: a record that was known to
// be durable when a later one was written can't be missing. It works on bytes; who owns the file writes and syncs it.
// Records come from files that may be damaged or hostile: nothing here panics or allocates by what they say.
//
// vmdisk/FORMAT.md describes every byte. Tests: go test ./vmdisk/reclog; the journals that use it are fuzzed.
package reclog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

const (
	recordHeader = 24
	sumSize      = 16
	// MaxBody is the longest body of a record, in bytes.
	MaxBody = 1 << 20
	// Overhead is what a record takes beside its body, in bytes.
	Overhead = recordHeader + sumSize
)

// ErrDamaged: a record that was durable can't be read.
var ErrDamaged = errors.New("reclog: damaged")

// NewHasher is the keyed hash of a file with that salt.
func NewHasher(salt [32]byte) *blake3.Hasher {
	h, err := blake3.NewKeyed(salt[:])
	if err != nil { // only for a key that isn't 32 bytes
		return blake3.New()
	}
	return h
}

// Tag appends the first n bytes of the hash over parts to dst. h isn't safe for concurrent use.
func Tag(h *blake3.Hasher, dst []byte, n int, parts ...[]byte) []byte {
	h.Reset()
	for _, p := range parts {
		_, _ = h.Write(p) // never fails
	}
	var out [32]byte
	return append(dst, h.Sum(out[:0])[:n]...)
}

// Append appends a record with a body of at most MaxBody bytes to b. seq is its number, synced the highest number that is
// known to be durable.
func Append(b []byte, h *blake3.Hasher, kind byte, body []byte, seq, synced uint64) []byte {
	le, start := binary.LittleEndian, len(b)
	b = le.AppendUint32(b, uint32(len(body)))
	b = append(b, kind, 0, 0, 0)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, synced)
	b = append(b, body...)
	return Tag(h, b, sumSize, b[start:])
}

// parse reads the record at the beginning of b; n is its length, 0 if it isn't whole and undamaged.
func parse(b []byte, h *blake3.Hasher) (kind byte, body []byte, seq, synced uint64, n int) {
	le := binary.LittleEndian
	if len(b) < Overhead || b[5]|b[6]|b[7] != 0 {
		return 0, nil, 0, 0, 0
	}
	size := le.Uint32(b)
	if size > MaxBody || len(b) < Overhead+int(size) {
		return 0, nil, 0, 0, 0
	}
	n = Overhead + int(size)
	var sum [sumSize]byte
	if string(Tag(h, sum[:0], sumSize, b[:n-sumSize])) != string(b[n-sumSize:n]) {
		return 0, nil, 0, 0, 0
	}
	return b[4], b[recordHeader : n-sumSize], le.Uint64(b[8:]), le.Uint64(b[16:]), n
}

// Replay calls apply for the records of b in order; body is part of b. It says where they end and what number the
// last has, 0 if there is none. What follows is a torn end. Errors: ErrDamaged, also if the records end within the first
// durable bytes; that of apply.
func Replay(b []byte, h *blake3.Hasher, durable int64, apply func(kind byte, body []byte) error) (end int, last uint64, err error) {
	for end < len(b) {
		kind, body, seq, _, n := parse(b[end:], h)
		if n == 0 || seq == 0 || last != 0 && seq != last+1 {
			break
		}
		if err := apply(kind, body); err != nil {
			return end, last, fmt.Errorf("record %d: %w", seq, err)
		}
		last, end = seq, end+n
	}
	if int64(end) < durable {
		return end, last, fmt.Errorf("record %d at byte %d: %w", last+1, end, ErrDamaged)
	}
	// A readable record that knows the unreadable one to have been durable proves damage.
	for x := end + 1; x+Overhead <= len(b); x++ {
		if seq := binary.LittleEndian.Uint64(b[x+8:]); seq <= last || seq > last+1<<20 {
			continue
		}
		if _, _, _, synced, n := parse(b[x:], h); n > 0 && synced > last {
			return end, last, fmt.Errorf("record %d at byte %d: %w", last+1, end, ErrDamaged)
		}
	}
	return end, last, nil
}
