package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"tagalong.org/tagalong/vmdisk"
)

// cell is the grain of the model in bytes: no write begins or ends within one, and no crash tears one.
const (
	cell       = 256
	blockCells = vmdisk.Block / cell
)

// values says what cells contain, by their index: the stamp of the write. What isn't in it is zeros.
type values map[int64]uint64

// state is what the guest was told of one cell.
type state struct {
	now     uint64   // read by the guest
	durable uint64   // what it was at the last flush
	since   []uint64 // what was written since
	next    uint64   // being written
	writing bool
}

// allowed says whether v may be found after a crash that took what was not synced (power), or nothing.
func (s state) allowed(v uint64, power bool) bool {
	if v == s.now || s.writing && v == s.next {
		return true
	}
	return power && (v == s.durable || slices.Contains(s.since, v))
}

// told is what the guest was told, and what the owner and the replica promised each other. It never changes: every
// step makes a new one, so that each crash point can keep its own.
type told struct {
	cells   map[int64]state
	history map[vmdisk.Position]values
	newest  vmdisk.Position // in history

	term     uint64
	active   bool
	fenced   bool
	giving   bool            // the term is being given away
	given    uint64          // the last that was
	held     vmdisk.Position // what the replica has promised to have
	complete bool            // the replica has promised to be whole
	ending   vmdisk.Position // the barrier that the replica is making
	partial  values          // what an incomplete replica got
	copying  [16]byte        // its first copy
	size     int64           // of the owner's disk, in bytes
	growing  int64           // what it is growing to, or size
}

func (m *told) but(change func(*told)) *told {
	c := *m
	change(&c)
	return &c
}

// begin notes a write under way; stamp 0 is zeros.
func (m *told) begin(off, n int64, stamp uint64) *told {
	return m.but(func(m *told) {
		m.cells = maps.Clone(m.cells)
		for i := off / cell; i < (off+n)/cell; i++ {
			s := m.cells[i]
			s.next, s.writing = stamp, true
			m.cells[i] = s
		}
	})
}

// end notes that the write under way was done.
func (m *told) end() *told {
	return m.but(func(m *told) {
		m.cells = maps.Clone(m.cells)
		for i, s := range m.cells {
			if s.writing {
				s.now, s.writing = s.next, false
				s.since = append(slices.Clip(s.since), s.next)
				m.cells[i] = s
			}
		}
	})
}

// flushed notes that all writes that were done are durable.
func (m *told) flushed() *told {
	return m.but(func(m *told) {
		m.cells = maps.Clone(m.cells)
		for i, s := range m.cells {
			s.durable, s.since = s.now, nil
			m.cells[i] = s
		}
	})
}

// now is what the guest reads.
func (m *told) now() values {
	v := values{}
	for i, s := range m.cells {
		if s.now != 0 {
			v[i] = s.now
		}
	}
	return v
}

// at notes that v is the disk at pos.
func (m *told) at(pos vmdisk.Position, v values) (*told, error) {
	if old, ok := m.history[pos]; ok {
		if !maps.Equal(old, v) {
			return nil, fmt.Errorf("position %s stands for two contents: %s", pos, differ(v, old))
		}
		return m, nil
	}
	if pos.Compare(m.newest) < 0 {
		return nil, fmt.Errorf("position %s comes after %s", pos, m.newest)
	}
	return m.but(func(m *told) {
		m.history = maps.Clone(m.history)
		m.history[pos], m.newest = v, pos
	}), nil
}

// known checks a disk that says to be at pos and contains v: either the position is in the history and this is what
// the disk was, or it is newer than all of them.
func (m *told) known(pos vmdisk.Position, v values) error {
	want, ok := m.history[pos]
	if ok && !maps.Equal(v, want) {
		return fmt.Errorf("isn't what the disk was at %s: %s", pos, differ(v, want))
	}
	if !ok && pos.Compare(m.newest) <= 0 {
		return fmt.Errorf("at %s, which never was; the newest is %s", pos, m.newest)
	}
	return nil
}

// owner checks what was found on the owner's disk.
func (m *told) owner(v values, power bool) error {
	for i := range v {
		if _, ok := m.cells[i]; !ok {
			return fmt.Errorf("cell %d (block %d) is %d and was never written", i, i/blockCells, v[i])
		}
	}
	for i, s := range m.cells {
		if !s.allowed(v[i], power) {
			return fmt.Errorf("cell %d (block %d) is %d, the guest was told %+v", i, i/blockCells, v[i], s)
		}
	}
	return nil
}

func differ(got, want values) string {
	keys := slices.Sorted(maps.Keys(got))
	keys = append(keys, slices.Sorted(maps.Keys(want))...)
	for _, i := range keys {
		if got[i] != want[i] {
			return fmt.Sprintf("cell %d (block %d) is %d, not %d", i, i/blockCells, got[i], want[i])
		}
	}
	return "equal"
}

// fill is the content of whole cells from off on after the write called stamp: in each, 16 bytes over and over.
func fill(p []byte, off int64, stamp uint64) []byte {
	if stamp == 0 {
		clear(p)
		return p
	}
	for at := 0; at < len(p); at += cell {
		c := p[at : at+cell]
		binary.LittleEndian.PutUint64(c, stamp)
		binary.LittleEndian.PutUint64(c[8:], uint64(off+int64(at))/cell)
		for n := 16; n < cell; n *= 2 {
			copy(c[n:], c[:n])
		}
	}
	return p
}

var zeroBlock [vmdisk.Block]byte

// parse adds the cells of p, which is read at off, to v.
func parse(v values, p []byte, off int64) error {
	for at := 0; at < len(p); at += cell {
		if at%vmdisk.Block == 0 && len(p)-at >= vmdisk.Block && bytes.Equal(p[at:at+vmdisk.Block], zeroBlock[:]) {
			at += vmdisk.Block - cell
			continue
		}
		c, i := p[at:at+cell], (off+int64(at))/cell
		if bytes.Equal(c, zeroBlock[:cell]) {
			continue
		}
		// A stamp is never 0.
		stamp := binary.LittleEndian.Uint64(c)
		if stamp == 0 || binary.LittleEndian.Uint64(c[8:]) != uint64(i) || !bytes.Equal(c[16:], c[:cell-16]) {
			return fmt.Errorf("cell %d (block %d) has something that was never written there", i, i/blockCells)
		}
		v[i] = stamp
	}
	return nil
}

// scan is all that r contains.
func scan(r vmdisk.Reader) (values, error) {
	v := values{}
	buf := make([]byte, 4*vmdisk.Block)
	for off := int64(0); off < r.Size(); {
		es, err := r.Extents(off, r.Size()-off)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			for end := off + e.Len; off < end; {
				n := min(end-off, int64(len(buf)))
				if e.Hole {
					n = e.Len
				} else if err := r.ReadAt(buf[:n], off); err != nil {
					return nil, err
				} else if err := parse(v, buf[:n], off); err != nil {
					return nil, err
				}
				off += n
			}
		}
	}
	return v, nil
}
