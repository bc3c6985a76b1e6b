package compare

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"tagalong.org/tagalong/p2p/replica"
)

// kind is a frame's type byte.
type kind uint8

const (
	kindRegions kind = 0x01
	kindBlocks  kind = 0x02
	kindLeaves  kind = 0x03
	kindPart    kind = 0x04
	kindZeros   kind = 0x81
	kindSum     kind = 0x82
	kindTags    kind = 0x83
	kindMiddle  kind = 0x85
)

// errReader: the own disk's answer makes no sense.
var errReader = errors.New("compare: bad answer from the disk")

// ask is a question for count regions from first on; leaves says which leaves, of a part, which is of one region.
type ask struct {
	kind         kind
	first, count int64
	leaves       leafMask
}

func (a ask) appendTo(b []byte) []byte {
	b = append(b, byte(a.kind))
	b = binary.BigEndian.AppendUint32(b, uint32(a.first))
	if a.kind == kindPart {
		return binary.BigEndian.AppendUint64(b, uint64(a.leaves))
	}
	return binary.BigEndian.AppendUint32(b, uint32(a.count))
}

const (
	askSize  = 9
	partSize = 13
)

// size is how many bytes it takes.
func (a ask) size() int64 {
	if a.kind == kindPart {
		return partSize
	}
	return askSize
}

// readAsk reads the next question about a disk of so many regions, in that version. io.EOF says that the stream ended before one.
func readAsk(r *bufio.Reader, regions int64, version int) (ask, error) {
	var b [partSize]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return ask{}, err
	}
	a := ask{kind: kind(b[0]), count: 1, leaves: allLeaves}
	if a.kind < kindRegions || a.kind > kindPart || version == 1 && a.kind > kindBlocks {
		return ask{}, fmt.Errorf("frame type 0x%02x from the owner: %w", b[0], ErrProtocol)
	}
	if err := replica.ReadFull(r, b[1:a.size()]); err != nil {
		return ask{}, err
	}
	a.first = int64(binary.BigEndian.Uint32(b[1:]))
	if a.kind == kindPart {
		a.leaves = leafMask(binary.BigEndian.Uint64(b[5:]))
	} else {
		a.count = int64(binary.BigEndian.Uint32(b[5:]))
	}
	if a.leaves == 0 {
		return ask{}, fmt.Errorf("no leaves of region %d: %w", a.first, ErrProtocol)
	}
	if a.count == 0 || a.first > regions || a.count > regions-a.first {
		return ask{}, fmt.Errorf("regions %d to %d of %d: %w", a.first, a.first+a.count, regions, ErrProtocol)
	}
	return a, nil
}

// answer is the replica's next frame: count regions of zeros, or one region.
type answer struct {
	count  int64 // 0: sum, or leaves and tags, or data and tags
	sum    sum
	leaves leafMask
	data   bitmap
	tags   []sum // as many as leaves, or data, has bits; memory of the frame before is used again
}

func appendZeros(b []byte, count int64) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(kindZeros)), uint32(count))
}

func appendSum(b []byte, s sum) []byte { return append(append(b, byte(kindSum)), s[:]...) }

// read reads the next answer to a question, of which left regions are open; blocks is how many the next of them has.
func (f *answer) read(r *bufio.Reader, of ask, left int64, blocks int) error {
	t, err := replica.ReadType(r, ErrReplica, ErrProtocol)
	if err != nil {
		return err
	}
	f.count = 0
	switch k := kind(t); {
	case k == kindZeros && of.kind != kindPart:
		var b [4]byte
		if err := replica.ReadFull(r, b[:]); err != nil {
			return err
		}
		f.count = int64(binary.BigEndian.Uint32(b[:]))
		if f.count == 0 || f.count > left {
			return fmt.Errorf("%d regions of zeros, %d were asked for: %w", f.count, left, ErrProtocol)
		}
		return nil
	case k == kindSum && of.kind == kindRegions:
		return replica.ReadFull(r, f.sum[:])
	case k == kindMiddle && of.kind == kindLeaves:
		return f.readLeaves(r, blocks)
	case k == kindTags && (of.kind == kindBlocks || of.kind == kindPart):
		return f.readTags(r, of.leaves, blocks)
	default:
		return fmt.Errorf("frame type 0x%02x from the replica: %w", t, ErrProtocol)
	}
}

func (f *answer) readLeaves(r *bufio.Reader, blocks int) (err error) {
	var b [8]byte
	if err := replica.ReadFull(r, b[:]); err != nil {
		return err
	}
	f.leaves = leafMask(binary.BigEndian.Uint64(b[:]))
	if have := (blocks + leafBlocks - 1) / leafBlocks; have < regionLeaves && f.leaves>>have != 0 {
		return fmt.Errorf("leaves %#x of a region of %d: %w", uint64(f.leaves), have, ErrProtocol)
	}
	f.tags, err = replica.ReadSums(r, f.tags[:0], f.leaves.count())
	return err
}

func (f *answer) readTags(r *bufio.Reader, leaves leafMask, blocks int) (err error) {
	if err := replica.ReadFull(r, f.data[:]); err != nil {
		return err
	}
	for x := range regionBlocks {
		if f.data.has(x) && (x >= blocks || !leaves.has(x/leafBlocks)) {
			return fmt.Errorf("block %d of a region of %d, leaves %#x: %w", x, blocks, uint64(leaves), ErrProtocol)
		}
	}
	f.tags, err = replica.ReadSums(r, f.tags[:0], f.data.count())
	return err
}
