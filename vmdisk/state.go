package vmdisk

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The kinds of journal records. Explicit numbers: they are on disk.
const (
	recState    = 1  // everything but ends and regions
	recEnd      = 2  // a term ended at a barrier
	recReserve  = 3  // barrier numbers up to this one may be in use
	recAdded    = 4  // regions entered the activity log
	recRetired  = 5  // regions left it
	recQuiet    = 6  // none are left in it, and base.raw is the disk at this position
	recReplica  = 7  // position and completeness of a replica
	recCheck    = 8  // why the disk needs checking; nothing: it doesn't
	recLayers   = 9  // all layers, top first
	recStale    = 10 // which blocks are stale, and what the disk was before
	recGrowing  = 11 // base.raw is being made longer
	maxLayers   = 64
	maxEnds     = 4096
	maxReason   = 1 << 10
	maxRegions  = int(MaxSize / regionSize)
	regionBatch = 1 << 16
)

const (
	flagComplete  = 1
	flagImporting = 2
	flagExact     = 4
)

// state is what the journal says: the result of replaying it.
type state struct {
	complete  bool
	importing bool
	// exact says that base.raw and the layers (with the epoch log) are the disk at position. A disk that is
	// written loses it until the activity log is empty again.
	exact     bool
	copy      [16]byte
	position  Position
	activated uint64     // highest term that this disk was active under
	given     uint64     // highest term that was given away
	reserved  uint64     // highest barrier number that may be in use
	check     string     // why the disk needs checking, or nothing
	layers    []layerRef // top first
	stale     staleRef   // while the disk isn't whole
	growing   int64      // bytes that base.raw may have more than the disk, up to so many; or 0
	ends      map[uint64]uint64
	regions   map[uint32]struct{}
}

func newState() *state {
	return &state{ends: map[uint64]uint64{}, regions: map[uint32]struct{}{}}
}

func (s *state) clone() *state {
	c := *s
	c.ends, c.regions = maps.Clone(s.ends), maps.Clone(s.regions)
	c.layers = slices.Clone(s.layers)
	return &c
}

// owned says that the disk is active under a term that it has not given away.
func (s *state) owned() bool { return s.activated > s.given }

// newest is the highest term that this disk has seen.
func (s *state) newest() uint64 { return max(s.activated, s.given, s.position.Term) }

// end notes the last barrier of a term, forgetting the oldest terms if there are too many.
func (s *state) end(p Position) {
	s.ends[p.Term] = p.Barrier
	for len(s.ends) > maxEnds {
		delete(s.ends, slices.Min(slices.Collect(maps.Keys(s.ends))))
	}
}

// lastEnd is where the term ended before the one that this disk was active under last, as far as that is known.
func (s *state) lastEnd() (end Position) {
	for t, b := range s.ends {
		if t < s.activated && t >= end.Term {
			end = Position{t, b}
		}
	}
	return end
}

type record struct {
	kind byte
	body []byte
}

func appendPosition(b []byte, p Position) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, p.Term), p.Barrier)
}

func readPosition(b []byte) Position {
	return Position{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

func (s *state) flags() (f byte) {
	if s.complete {
		f |= flagComplete
	}
	if s.importing {
		f |= flagImporting
	}
	if s.exact {
		f |= flagExact
	}
	return f
}

// records is a shortest journal that leads to s.
func (s *state) records() []record {
	le := binary.LittleEndian
	b := append(make([]byte, 0, 64), s.flags())
	b = append(b, s.copy[:]...)
	b = appendPosition(b, s.position)
	b = le.AppendUint64(b, s.activated)
	b = le.AppendUint64(b, s.given)
	b = le.AppendUint64(b, s.reserved)
	var out []record
	for _, t := range slices.Sorted(maps.Keys(s.ends)) {
		out = append(out, record{recEnd, appendPosition(nil, Position{t, s.ends[t]})})
	}
	for part := range slices.Chunk(slices.Sorted(maps.Keys(s.regions)), regionBatch) {
		out = append(out, regionRecord(recAdded, part))
	}
	if s.check != "" {
		out = append(out, checkRecord(s.check))
	}
	if len(s.layers) > 0 {
		out = append(out, layersRecord(s.layers))
	}
	if s.stale.serial != 0 {
		out = append(out, s.stale.record())
	}
	if s.growing != 0 {
		out = append(out, growingRecord(s.growing))
	}
	// Last, because adding regions takes exactness away.
	return append(out, record{recState, b})
}

func regionRecord(kind byte, rs []uint32) record {
	var b []byte
	for _, r := range rs {
		b = binary.LittleEndian.AppendUint32(b, r)
	}
	return record{kind, b}
}

func quietRecord(p Position) record { return record{recQuiet, appendPosition(nil, p)} }

func reserveRecord(n uint64) record {
	return record{recReserve, binary.LittleEndian.AppendUint64(nil, n)}
}

func replicaRecord(complete bool, copy [16]byte, p Position) record {
	b := []byte{0}
	if complete {
		b[0] = flagComplete
	}
	return record{recReplica, appendPosition(append(b, copy[:]...), p)}
}

func growingRecord(size int64) record {
	return record{recGrowing, binary.LittleEndian.AppendUint64(nil, uint64(size))}
}

// checkRecord says why the disk needs checking, in at most maxReason bytes.
func checkRecord(reason string) record {
	return record{recCheck, []byte(reason[:min(len(reason), maxReason)])}
}

// apply replays one record. The state is unchanged if it fails.
func (s *state) apply(r record) error {
	le := binary.LittleEndian
	bad := fmt.Errorf("journal record of kind %d with %d bytes: %w", r.kind, len(r.body), ErrCorrupt)
	switch r.kind {
	case recState:
		if len(r.body) != 57 {
			return bad
		}
		f := r.body[0]
		s.complete, s.importing, s.exact = f&flagComplete != 0, f&flagImporting != 0, f&flagExact != 0
		s.copy = [16]byte(r.body[1:17])
		s.position = readPosition(r.body[17:])
		s.activated, s.given, s.reserved = le.Uint64(r.body[33:]), le.Uint64(r.body[41:]), le.Uint64(r.body[49:])
	case recEnd:
		if len(r.body) != 16 {
			return bad
		}
		s.end(readPosition(r.body))
	case recReserve:
		if len(r.body) != 8 {
			return bad
		}
		s.reserved = max(s.reserved, le.Uint64(r.body))
	case recAdded, recRetired:
		if len(r.body)%4 != 0 {
			return bad
		}
		for i := 0; i < len(r.body); i += 4 {
			x := le.Uint32(r.body[i:])
			if int(x) >= maxRegions {
				return bad
			}
			if r.kind == recAdded {
				s.regions[x], s.exact = struct{}{}, false
			} else {
				delete(s.regions, x)
			}
		}
	case recQuiet:
		if len(r.body) != 16 {
			return bad
		}
		s.position, s.exact = readPosition(r.body), true
		clear(s.regions)
	case recReplica:
		if len(r.body) != 33 {
			return bad
		}
		s.complete = r.body[0]&flagComplete != 0
		s.copy = [16]byte(r.body[1:17])
		s.position = readPosition(r.body[17:])
	case recCheck:
		if len(r.body) > maxReason {
			return bad
		}
		s.check = strings.ToValidUTF8(string(r.body), "?")
	case recLayers:
		refs, err := parseLayers(r.body)
		if err != nil {
			return fmt.Errorf("%w: %w", bad, err)
		}
		s.layers = refs
	case recStale:
		if len(r.body) != staleRefSize {
			return bad
		}
		s.stale = parseStaleRef(r.body)
	case recGrowing:
		if len(r.body) != 8 || le.Uint64(r.body) > uint64(MaxSize) {
			return bad
		}
		s.growing = int64(le.Uint64(r.body))
	default:
		return bad
	}
	return nil
}
