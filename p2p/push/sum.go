package push

import (
	"fmt"

	"github.com/zeebo/blake3"
)

// kind says what an Ask asks by. The numbers are those on the wire.
type kind byte

const (
	askBlocks kind = 1 // 16 bytes a block, keyed: is it at its place?
	askUnits  kind = 2 // 16 bytes for every unitBlocks blocks of the set, keyed
	askRegion kind = 3 // 16 bytes for the whole set, keyed
	askWide   kind = 4 // 32 bytes a block, not keyed: is it anywhere?
)

const unitBlocks = 16

// group is how many blocks of the set one sum covers; 0 if there is no such kind.
func (k kind) group() int {
	switch k {
	case askBlocks, askWide:
		return 1
	case askUnits:
		return unitBlocks
	case askRegion:
		return regionBlocks
	}
	return 0
}

// size of one sum in bytes.
func (k kind) size() int {
	if k == askWide {
		return 32
	}
	return 16
}

// sums is how many sums a question about n blocks has.
func (k kind) sums(n int) int { return (n + k.group() - 1) / k.group() }

// summer makes the sums of a stream. Not safe for concurrent use.
type summer struct{ keyed, plain *blake3.Hasher }

func newSummer(key [32]byte) (*summer, error) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &summer{keyed: h, plain: blake3.New()}, nil
}

// appendSum appends the sum of content.
func (s *summer) appendSum(b []byte, k kind, content []byte) []byte {
	h := s.keyed
	if k == askWide {
		h = s.plain
	}
	h.Reset()
	_, _ = h.Write(content)
	var full [32]byte
	return append(b, h.Sum(full[:0])[:k.size()]...)
}

var zeroBlock [Block]byte

func isZero(p []byte) bool { return string(p) == string(zeroBlock[:len(p)]) }
