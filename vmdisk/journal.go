package vmdisk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/reclog"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	journalName   = "journal"
	journalHeader = 112
	compactAbove  = 1 << 20
)

// header is the fixed beginning of the journal: which disk this is.
type header struct {
	id   ID
	size int64
	salt [32]byte
	// durable is how many bytes after the header were stored before the file got its name; if any of
	// these is unreadable the file is damaged, not torn.
	durable int64
	version uint32 // of the file
}

// journal is the disk's durable memory: an append-only file of checksummed records. Safe for concurrent use.
type journal struct {
	fs     vfs.FS
	syncMu sync.Mutex // held while syncing or replacing the file
	synced uint64     // under syncMu and mu: all records up to this one are durable

	mu    sync.Mutex
	f     vfs.File
	h     header
	sum   *blake3.Hasher
	st    *state
	seq   uint64 // of the last record
	size  int64
	limit int64 // compact above
	err   error // final
}

func appendHeader(h header) []byte {
	le := binary.LittleEndian
	b := journalFormat.begin(make([]byte, 0, journalHeader))
	b = append(b, h.id[:]...)
	b = le.AppendUint64(b, uint64(h.size))
	b = append(b, h.salt[:]...)
	b = le.AppendUint64(b, uint64(h.durable))
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

func parseHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	v, err := journalFormat.version(b)
	switch {
	case errors.Is(err, ErrForeign):
		return header{}, fmt.Errorf("%s: %w: %w", journalName, ErrCorrupt, err)
	case err != nil:
		return header{}, fmt.Errorf("%s: %w", journalName, err)
	case len(b) < journalHeader:
		return header{}, fmt.Errorf("%s: header: %w", journalName, ErrCorrupt)
	}
	if sum := blake3.Sum256(b[:80]); string(sum[:]) != string(b[80:112]) {
		return header{}, fmt.Errorf("%s: header: %w", journalName, ErrCorrupt)
	}
	h := header{id: ID(b[16:32]), size: int64(le.Uint64(b[32:])), salt: [32]byte(b[40:72]), durable: int64(le.Uint64(b[72:])), version: v}
	if err := checkSize(h.size); err != nil || h.durable < 0 || h.durable > 1<<40 {
		return header{}, fmt.Errorf("%s: header: %w", journalName, ErrCorrupt)
	}
	return h, nil
}

// parseJournal replays the bytes of a journal. A torn end is left out; damage before it is ErrCorrupt.
func parseJournal(b []byte) (header, *state, error) {
	h, err := parseHeader(b)
	if err != nil {
		return h, nil, err
	}
	st := newState()
	_, last, err := reclog.Replay(b[journalHeader:], reclog.NewHasher(h.salt), h.durable, func(kind byte, body []byte) error {
		if kind > journalKinds[h.version] {
			return fmt.Errorf("journal record of kind %d in version %d: %w", kind, h.version, ErrCorrupt)
		}
		return st.apply(record{kind, body})
	})
	switch {
	case err == nil && last == 0:
		return h, nil, fmt.Errorf("%s: no record: %w", journalName, ErrCorrupt)
	case errors.Is(err, reclog.ErrDamaged):
		return h, nil, fmt.Errorf("%s: %w: %w", journalName, ErrCorrupt, err)
	case err != nil:
		return h, nil, fmt.Errorf("%s: %w", journalName, err)
	}
	return h, st, nil
}

// createJournal stores a new journal with st.
func createJournal(fsys vfs.FS, h header, st *state) (*journal, error) {
	j := &journal{fs: fsys, h: h, st: st}
	_, _ = rand.Read(j.h.salt[:])
	if err := j.replace(st); err != nil {
		return nil, err
	}
	return j, nil
}

// openJournal reads the journal, and doesn't write.
func openJournal(fsys vfs.FS) (*journal, error) {
	f, err := fsys.Open(journalName)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	b, err := readAll(f, 1<<28)
	if err != nil {
		_ = f.Close() // read only
		return nil, fmt.Errorf("journal: %w", err)
	}
	h, st, err := parseJournal(b)
	if err != nil {
		_ = f.Close() // read only
		return nil, err
	}
	return &journal{fs: fsys, f: f, h: h, st: st}, nil
}

// readAll is the content of a file of at most limit bytes.
func readAll(f vfs.File, limit int64) ([]byte, error) {
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("file of %d bytes: %w", n, ErrCorrupt)
	}
	b := make([]byte, n)
	if m, err := f.ReadAt(b, 0); err != nil && (!errors.Is(err, io.EOF) || int64(m) < n) {
		return nil, err
	}
	return b, nil
}

// replace stores st as a new file in place of the old one, durably. If it fails before
// the new file has its name, all is as before. Callers hold syncMu and mu, or are alone.
func (j *journal) replace(st *state) error {
	if j.err != nil {
		return j.err
	}
	h := j.h
	_, _ = rand.Read(h.salt[:])
	sum := reclog.NewHasher(h.salt)
	recs := st.records()
	var body []byte
	seq := j.seq // numbers go on, so that who waits for one isn't misled
	for _, r := range recs {
		seq++
		body = reclog.Append(body, sum, r.kind, r.body, seq, 0)
	}
	h.durable, h.version = int64(len(body)), journalFormat.newest()
	if err := vfs.Stage(j.fs, journalName, append(appendHeader(h), body...)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if j.f != nil {
		_ = j.f.Close() // some systems don't replace an open file
	}
	placed, err := vfs.Place(j.fs, journalName)
	f, ferr := j.fs.Open(journalName)
	if placed {
		j.h, j.sum, j.st = h, sum, st
		j.seq, j.synced = seq, seq
		j.size = journalHeader + h.durable
		j.limit = max(compactAbove, 2*j.size)
	}
	if j.f = f; ferr != nil || placed && err != nil {
		j.err = fmt.Errorf("journal: %w: %w", ErrFailed, errors.Join(err, ferr))
		return j.err
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// commit applies change to the state and stores all of it, atomically and durably.
func (j *journal) commit(change func(*state)) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	st := j.st.clone()
	change(st)
	return j.replace(st)
}

// resize is commit, of a change after which the disk has that size. Unless it was placed, it has the size that it had.
func (j *journal) resize(size int64, change func(*state)) (placed bool, err error) {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	st, before := j.st.clone(), j.h.size
	change(st)
	j.h.size = size
	err = j.replace(st)
	if placed = j.st == st; !placed {
		j.h.size = before
	}
	return placed, err
}

// append adds a record, which becomes durable by syncTo(seq) at the latest.
func (j *journal) append(r record) (seq uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	b := reclog.Append(nil, j.sum, r.kind, r.body, j.seq+1, j.synced)
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		if terr := j.f.Truncate(j.size); terr != nil {
			j.err = fmt.Errorf("journal: %w: %w", ErrFailed, terr)
		}
		return 0, fmt.Errorf("journal: %w", err)
	}
	if err := j.st.apply(r); err != nil {
		return 0, err
	}
	j.seq, j.size = j.seq+1, j.size+int64(len(b))
	return j.seq, nil
}

// durableTo says whether record seq is known to be durable.
func (j *journal) durableTo(seq uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err == nil && j.synced >= seq
}

// syncTo makes the records up to seq durable; one sync serves all who wait for it.
func (j *journal) syncTo(seq uint64) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	if j.err == nil && j.size > j.limit && j.replace(j.st.clone()) != nil {
		j.limit = 2 * j.size // no room for a second file: the old one does it
	}
	f, upTo, err, done := j.f, j.seq, j.err, j.synced >= seq
	j.mu.Unlock()
	if err != nil || done {
		return err
	}
	err = f.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.err = fmt.Errorf("journal: %w: %w", ErrFailed, err)
		return j.err
	}
	j.synced = upTo
	return nil
}

// exact says whether the disk is known to be exactly at its position, and the record that says so at the latest.
func (j *journal) exact() (exact bool, seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.st.exact, j.seq
}

// snapshot is a copy of the present state.
func (j *journal) snapshot() *state {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.st.clone()
}

// terms are the highest term of the present state, and those that the disk was activated under and given away last.
func (j *journal) terms() (newest, activated, given uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.st.newest(), j.st.activated, j.st.given
}

func (j *journal) close() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = ErrClosed
	}
	if j.f == nil {
		return nil
	}
	return j.f.Close()
}
