package layer

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// Block is the unit of a layer, in bytes.
const Block = 4096

// Kind says what a layer is for. The numbers are on disk.
type Kind uint32

// The kinds of layers.
const (
	// Incoming: a newer state of the disk, on its way here.
	Incoming Kind = 1
	// Fetched: what a new owner has from the owner before.
	Fetched Kind = 2
	// Written: what the guest wrote while the disk wasn't whole.
	Written Kind = 3
)

const (
	dataSuffix = ".data"
	mapSuffix  = ".map"
)

// The errors of this package, wrapped; those of the files pass through.
var (
	// ErrCorrupt: a file is damaged or missing. The text names it.
	ErrCorrupt = errors.New("layer: damaged")
	// ErrVersion: the map was written by a newer program.
	ErrVersion = errors.New("layer: format is newer than this program")
	// ErrForeign: the layer is of another disk or kind.
	ErrForeign = errors.New("layer: not of this disk")
	// ErrAbsent: a part of a block was to be written that the layer doesn't have.
	ErrAbsent = errors.New("layer: block not present")
	// ErrFailed: an earlier failure left it unknown what is stored; only opening it again helps.
	ErrFailed = errors.New("layer: failed before; open it again")
)

// Config says of which disk a layer is.
type Config struct {
	FS     vfs.FS
	Name   string // the files' names without their ends
	Disk   [16]byte
	Blocks int64 // of the disk, as it is now: the layer may be of a time when it had fewer
	Kind   Kind
}

// Layer is one open layer.
type Layer struct {
	c    Config
	data vfs.File

	// writes is held for reading by every write under way, and for writing while the map is rewritten.
	writes sync.RWMutex
	// syncing is held by Sync and by what replaces the map.
	syncing sync.Mutex

	mu   sync.RWMutex
	have *blockset.Set
	// fresh are blocks whose presence isn't durable; those in pending are being made so.
	fresh, pending *blockset.Set
	log            vfs.File // the map
	version        uint32   // its
	sum            *blake3.Hasher
	salt           [32]byte
	seq, synced    uint64
	size, limit    int64
	note           []byte
	err            error // final
	closed         bool
}

// Create makes an empty layer, durably, and opens it. Errors: fs.ErrExists, those of the files; then nothing is left of it.
func Create(c Config) (*Layer, error) {
	l := newLayer(c)
	f, err := c.FS.Create(c.Name + dataSuffix)
	if err != nil {
		return nil, fmt.Errorf("create layer %s: %w", c.Name, err)
	}
	l.data = f
	err = f.Truncate(c.Blocks * Block)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.rewrite()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create layer %s: %w", c.Name, err), l.Remove())
	}
	return l, nil
}

func newLayer(c Config) *Layer {
	return &Layer{c: c, have: blockset.New(blockset.Most), fresh: blockset.New(blockset.Most), pending: blockset.New(blockset.Most)}
}

// Open opens a layer as it is after a crash. Errors: ErrCorrupt (also if a file is missing), ErrVersion, ErrForeign.
func Open(c Config) (*Layer, error) {
	l := newLayer(c)
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open layer %s: %w", c.Name, err), l.Close())
	}
	return l, nil
}

func (l *Layer) open() error {
	var err error
	if l.data, err = l.c.FS.Open(l.c.Name + dataSuffix); err != nil {
		return missing(l.c.Name+dataSuffix, err)
	}
	if l.log, err = l.c.FS.Open(l.c.Name + mapSuffix); err != nil {
		return missing(l.c.Name+mapSuffix, err)
	}
	return l.load()
}

// fit makes the data as long as the disk, which has grown if there are fewer than that; of was as long as it was when the map was made.
func (l *Layer) fit(of int64) error {
	n, err := l.data.Size()
	if err != nil || n < of*Block || n > l.c.Blocks*Block {
		return errors.Join(err, fmt.Errorf("%s: %d bytes instead of %d: %w", l.c.Name+dataSuffix, n, l.c.Blocks*Block, ErrCorrupt))
	}
	if n == l.c.Blocks*Block {
		return nil
	}
	return unlessLooking(l.data.Truncate(l.c.Blocks * Block))
}

// Renew makes the map one of the newest version, durably, if it isn't: an old one isn't understood once the disk has grown. Errors are those of Sync.
func (l *Layer) Renew() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.writes.Lock()
	defer l.writes.Unlock()
	l.mu.RLock()
	old := l.version < mapVersion
	l.mu.RUnlock()
	if !old {
		return nil
	}
	if err := l.sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rewrite()
}

// Grow tells that the disk has that many blocks now, which are no fewer than before. Nothing may be reading or writing. That isn't durable:
// a layer that is opened with more blocks grows by itself. Errors are those of the file.
func (l *Layer) Grow(blocks int64) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := l.data.Truncate(blocks * Block); err != nil {
		return fmt.Errorf("%s: %w", l.c.Name+dataSuffix, err)
	}
	l.c.Blocks = blocks
	return nil
}

// Files says which files of a directory are a layer's, and the name of that.
func Files(name string) (layer string, ok bool) {
	for _, suffix := range []string{dataSuffix, mapSuffix, mapSuffix + vfs.TempSuffix} {
		if n := len(name) - len(suffix); n > 0 && name[n:] == suffix {
			return name[:n], true
		}
	}
	return "", false
}

// Name of the layer.
func (l *Layer) Name() string { return l.c.Name }

// Kind of the layer.
func (l *Layer) Kind() Kind { return l.c.Kind }

// Has says whether the layer has block x.
func (l *Layer) Has(x int64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.have.Has(x)
}

// Run says whether the layer has block x, and where the run of blocks ends for which that is so: at most end.
func (l *Layer) Run(x, end int64) (has bool, to int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	has = l.have.Has(x)
	return has, min(end, l.have.Next(x, !has))
}

// Present is how many blocks the layer has.
func (l *Layer) Present() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.have.Count()
}

// Blocks is a copy of the set of blocks that the layer has.
func (l *Layer) Blocks() *blockset.Set {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.have.Clone()
}

// Allocated is how many bytes the layer's content takes.
func (l *Layer) Allocated() (int64, error) { return l.data.Allocated() }

// Close closes the files. What was not synced is as after the death of the process.
func (l *Layer) Close() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.err == nil {
		l.err = fmt.Errorf("layer %s is closed: %w", l.c.Name, ErrFailed)
	}
	var errs []error
	for _, f := range []vfs.File{l.data, l.log} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Remove closes the layer and deletes its files. That is durable when the directory is synced.
func (l *Layer) Remove() error {
	return errors.Join(l.Close(), Delete(l.c.FS, l.c.Name))
}

// readFull reads all of p; the end of the file is an error.
func readFull(f vfs.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
