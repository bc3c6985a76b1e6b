package layer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/reclog"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// FORMAT.md describes the map.
const (
	mapMagic   = "TAGLAYR\n"
	mapVersion = 2 // 1: a full last chunk ends where the disk ended when the map was made
	mapHeader  = 120

	recPresent = 1 // these blocks are present and durable
	recPut     = 2 // these blocks were going to be this
	recZero    = 3 // these blocks were going to be zeros

	compactAbove = 1 << 20
	partBytes    = 256 << 10
)

// header is the map's, for what durable bytes after it.
func (l *Layer) header(salt [32]byte, durable int) []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, mapHeader), mapMagic...)
	b = le.AppendUint32(b, mapVersion)
	b = le.AppendUint32(b, uint32(l.c.Kind))
	b = append(b, l.c.Disk[:]...)
	b = le.AppendUint64(b, uint64(l.c.Blocks))
	b = append(b, salt[:]...)
	b = le.AppendUint64(b, uint64(durable))
	b = le.AppendUint64(b, 0)
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// parseHeader also says how many blocks the disk had when the map was made.
func (l *Layer) parseHeader(b []byte) (durable, blocks int64, err error) {
	le := binary.LittleEndian
	if len(b) < mapHeader || string(b[:8]) != mapMagic {
		return 0, 0, fmt.Errorf("no header: %w", ErrCorrupt)
	}
	if l.version = le.Uint32(b[8:]); l.version > mapVersion {
		return 0, 0, fmt.Errorf("version %d: %w", l.version, ErrVersion)
	}
	if sum := blake3.Sum256(b[:88]); string(sum[:]) != string(b[88:mapHeader]) {
		return 0, 0, fmt.Errorf("header: %w", ErrCorrupt)
	}
	if Kind(le.Uint32(b[12:])) != l.c.Kind || [16]byte(b[16:32]) != l.c.Disk || le.Uint64(b[32:]) > uint64(l.c.Blocks) {
		return 0, 0, ErrForeign
	}
	l.salt = [32]byte(b[40:72])
	l.sum = reclog.NewHasher(l.salt)
	return int64(le.Uint64(b[72:])), int64(le.Uint64(b[32:])), nil
}

// load reads the map, and takes what notes prove.
func (l *Layer) load() error {
	name := l.c.Name + mapSuffix
	size, err := l.log.Size()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// Twice all chunks in their longest form, and what is written between two compactions.
	if limit := 4*blockset.MaxEncoded(l.c.Blocks) + 256<<20; size > limit {
		return fmt.Errorf("%s: %d bytes: %w", name, size, ErrCorrupt)
	}
	b := make([]byte, size)
	if n, err := l.log.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || int64(n) < size) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := l.parse(b); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (l *Layer) parse(b []byte) error {
	durable, blocks, err := l.parseHeader(b)
	if err == nil {
		err = l.fit(blocks)
	}
	if err != nil {
		return err
	}
	left := &notes{puts: map[int64][][noteSum]byte{}, zeros: blockset.New(l.c.Blocks)}
	end, last, err := reclog.Replay(b[mapHeader:], l.sum, durable, func(kind byte, body []byte) error {
		switch kind {
		case recPresent:
			if err := l.present(body, blocks); err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			return nil
		case recPut:
			return left.put(body, l.c.Blocks)
		case recZero:
			return left.zero(body, l.c.Blocks)
		}
		return fmt.Errorf("record of kind %d: %w", kind, ErrCorrupt)
	})
	if errors.Is(err, reclog.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return err
	}
	l.seq, l.size, l.limit = last, mapHeader+int64(end), compactAbove
	// The next record begins where the torn one does, and must never be followed by remains of it.
	if l.size < int64(len(b)) {
		if err := unlessLooking(l.log.Truncate(l.size)); err != nil {
			return err
		}
	}
	// What a killed process wrote and didn't sync would count as durable.
	if err := unlessLooking(l.log.Sync()); err != nil {
		return err
	}
	l.synced = last
	return l.settle(left)
}

// present adds what a record says, in a map that was made when the disk had that many blocks.
func (l *Layer) present(body []byte, blocks int64) error {
	if l.version > 1 {
		return l.have.AddEncoded(body)
	}
	s, err := blockset.Decode(body, blocks)
	if err != nil {
		return err
	}
	s.Grow(blockset.Most)
	l.have.Or(s)
	return nil
}

// unlessLooking lets a layer be opened through vfs.ReadOnly: it is never written then, so nothing need be put right.
func unlessLooking(err error) error {
	if errors.Is(err, vfs.ErrReadOnly) {
		return nil
	}
	return err
}

// append adds a record, not durable yet. The caller holds mu.
func (l *Layer) append(kind byte, body []byte) error {
	if l.err != nil {
		return l.err
	}
	b := reclog.Append(nil, l.sum, kind, body, l.seq+1, l.synced)
	if _, err := l.log.WriteAt(b, l.size); err != nil {
		if terr := l.log.Truncate(l.size); terr != nil {
			return l.fail(terr)
		}
		return fmt.Errorf("%s: %w", l.c.Name+mapSuffix, err)
	}
	l.seq, l.size = l.seq+1, l.size+int64(len(b))
	return nil
}

// fail makes err final. The caller holds mu.
func (l *Layer) fail(err error) error {
	l.err = fmt.Errorf("layer %s: %w: %w", l.c.Name, ErrFailed, err)
	return l.err
}

// Sync makes everything durable that was written before: content first, then the set. An error that is ErrFailed is final; after
// another (ENOSPC) the content is durable, but maybe not the set, and it can be tried again.
func (l *Layer) Sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if err := l.sync(); err != nil {
		return err
	}
	l.mu.RLock()
	grown := l.size > l.limit
	l.mu.RUnlock()
	if !grown {
		return nil
	}
	l.writes.Lock()
	defer l.writes.Unlock()
	if err := l.sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.rewrite(); err != nil {
		if l.err != nil {
			return l.err
		}
		l.limit = 2 * l.size // no room for a second file: the old one does it
	}
	return nil
}

// sync is Sync without compaction. The caller holds syncing.
func (l *Layer) sync() error {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return l.err
	}
	l.fresh, l.pending = l.pending, l.fresh // pending was empty
	l.mu.Unlock()
	err := l.data.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.fail(err)
	}
	if l.pending.Empty() {
		return nil
	}
	if err := l.record(); err != nil {
		l.fresh.Or(l.pending)
		l.pending.Reset()
		return err
	}
	upTo := l.seq
	l.mu.Unlock()
	err = l.log.Sync()
	l.mu.Lock()
	if err != nil {
		return l.fail(err)
	}
	l.synced = upTo
	l.pending.Reset()
	return nil
}

// record appends pending to the map. The caller holds mu.
func (l *Layer) record() error {
	for part, at := []byte(nil), 0; at >= 0; {
		part, at = l.pending.AppendPart(part[:0], at, partBytes)
		if err := l.append(recPresent, part); err != nil {
			return err
		}
	}
	return nil
}

// rewrite replaces the map by a shortest one. Everything present is durable. The caller holds syncing, writes and mu, or
// is alone.
func (l *Layer) rewrite() error {
	if l.err != nil {
		return l.err
	}
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails
	sum, name := reclog.NewHasher(salt), l.c.Name+mapSuffix
	var body, part []byte
	seq := l.seq
	for at := 0; at >= 0; {
		part, at = l.have.AppendPart(part[:0], at, partBytes)
		seq++
		body = reclog.Append(body, sum, recPresent, part, seq, 0)
	}
	if err := vfs.Stage(l.c.FS, name, append(l.header(salt, len(body)), body...)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if l.log != nil {
		_ = l.log.Close() // some systems don't replace an open file
	}
	placed, err := vfs.Place(l.c.FS, name)
	f, ferr := l.c.FS.Open(name)
	if placed {
		l.salt, l.sum, l.seq, l.synced, l.version = salt, sum, seq, seq, mapVersion
		l.size = mapHeader + int64(len(body))
		l.limit = max(compactAbove, 2*l.size)
	}
	l.log = f
	if ferr != nil || placed && err != nil {
		return l.fail(errors.Join(err, ferr))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
