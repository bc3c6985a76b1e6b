package vmdisk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/layer"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	baseName = "base.raw"
	lockName = "lock"
	// hotSets is how much memory the peers' sets take before they are packed, in bytes: with what is packed then, a random
	// tenth of 1 TiB for three peers stays under 64 MiB.
	hotSets = 20 << 20
)

// Store is one open disk of this device: what a directory holds. Its methods may be called from any goroutine.
type Store struct {
	id     ID
	size   atomic.Int64 // in bytes; rises under role, saveMu, and as stack changes
	o      Options
	fs     vfs.FS
	log    *slog.Logger
	lock   io.Closer
	stack  stack
	j      *journal
	al     *activity
	space  *space
	claims claims
	epochs *epochLog
	hashes *hashes
	cuts   cuts

	// hydration is nil if nothing is stale. It changes like stack.
	hydration atomic.Pointer[hydration]

	role     sync.Mutex   // changes of what this disk is
	saveMu   sync.Mutex   // storing dirty sets
	syncMu   sync.Mutex   // rounds
	scrubMu  sync.Mutex   // held by the one Scrub at a time
	gate     sync.RWMutex // held for reading by every write under way
	rd       sync.RWMutex // held for writing while an epoch is applied
	queueing atomic.Int64 // feeds that want the content of writes
	open     atomic.Bool  // writable says nil; see reconsider
	legible  atomic.Bool  // readable says nil

	mu         sync.Mutex // guards all below, and peers and feeds
	closed     bool
	active     bool
	fenced     bool
	pristine   bool // nothing was written since the disk became active
	complete   bool
	wrote      bool // since the last cut
	naming     bool // the next barrier is one of this term
	syncing    bool // a barrier was cut, and what it stands for, or its name alone, isn't durable yet: position is behind it
	wroteAt    time.Time
	written    int64  // bytes since the last cut, about
	term       uint64 // active under
	given      uint64
	counter    uint64 // last barrier number in use
	reserved   uint64
	position   Position
	copy       [16]byte // the unfinished copy to this replica
	checkpoint Position // and how far it is, if the replica is whole; else position says it
	ends       map[uint64]uint64
	err        error  // final
	unapplied  error  // why the epoch log could not be applied
	doubt      string // why the disk needs checking, or nothing
	unmarked   bool   // doubt isn't in the journal yet
	troubles   uint64 // how often there was reason to check
	looking    bool   // files are only looked at: nothing is marked
	next       *round
	peers      map[string]*peer
	sets       *blockset.Pool  // of the peers
	lack       []*blockset.Set // used again by track
	trail      trail
	watchers   map[chan struct{}]string
	looks      map[*Look]struct{}
	applier    *Applier

	incoming *layer.Layer // of an unfinished catch-up; the applier's, or role's where there is none

	trouble   chan string // for Options.Troubled
	stop      chan struct{}
	mergeWake chan struct{}
	mergeTurn *mergeTurn    // guarded by mu
	ripe      chan struct{} // 1-buffered: written has come to barrierBytes
	wg        sync.WaitGroup
}

func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

// Create makes a new disk of size bytes, all zeros, in the directory dir (made if missing), and opens it. It is complete
// and not active. Errors: ErrExists, ErrInUse, ErrRange.
func Create(dir string, id ID, size int64, o Options) (*Store, error) {
	return create(dir, id, size, o, true)
}

// CreateReplica is Create for a replica that has nothing yet.
func CreateReplica(dir string, id ID, size int64, o Options) (*Store, error) {
	return create(dir, id, size, o, false)
}

func create(dir string, id ID, size int64, o Options, complete bool) (*Store, error) {
	if err := checkSize(size); err != nil {
		return nil, fmt.Errorf("create disk: %w", err)
	}
	if o.FS == nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create disk: %w", err)
		}
	}
	o = o.withDefaults(dir)
	lock, err := takeLock(o.FS)
	if err != nil {
		return nil, fmt.Errorf("create disk in %s: %w", dir, err)
	}
	if err := createFiles(o.FS, header{id: id, size: size}, complete); err != nil {
		return nil, errors.Join(fmt.Errorf("create disk in %s: %w", dir, err), lock.Close())
	}
	return open(dir, o, lock)
}

func takeLock(fsys vfs.FS) (io.Closer, error) {
	lock, err := fsys.Lock(lockName)
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return lock, err
}

func createFiles(fsys vfs.FS, h header, complete bool) error {
	names, err := fsys.List()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == journalName || n == baseName {
			return fmt.Errorf("%s: %w", n, ErrExists)
		}
	}
	base, err := fsys.Create(baseName)
	if err != nil {
		return err
	}
	if err := errors.Join(base.Truncate(h.size), base.Sync(), base.Close()); err != nil {
		return errors.Join(err, fsys.Remove(baseName))
	}
	st := newState()
	st.complete, st.exact = complete, true
	j, err := createJournal(fsys, h, st)
	if err != nil {
		return errors.Join(err, fsys.Remove(baseName))
	}
	return j.close()
}

// Open opens the disk in dir. It is not active. What a crash left behind is put right: committed epochs are applied,
// recently written regions count as dirty for all peers. A directory that has no disk is left as it is. Errors: ErrNoDisk,
// ErrNoJournal, ErrNoBase, ErrBaseSize, ErrNotDir, ErrNotFile, ErrInUse, ErrCorrupt, ErrForeign, ErrVersion, those of the files.
func Open(dir string, o Options) (*Store, error) {
	o = o.withDefaults(dir)
	if err := findDisk(o.FS); err != nil {
		return nil, fmt.Errorf("open disk in %s: %w", dir, err)
	}
	lock, err := takeLock(o.FS)
	if err != nil {
		return nil, fmt.Errorf("open disk in %s: %w", dir, err)
	}
	return open(dir, o, lock)
}

// findDisk makes sure that there is something like a disk.
func findDisk(fsys vfs.FS) error {
	names, err := fsys.List()
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoDisk
	}
	if err == nil && !slices.Contains(names, journalName) && !slices.Contains(names, baseName) {
		// Either may be a directory, which isn't listed.
		f, err := fsys.Open(journalName)
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNoDisk
		}
		if err == nil {
			err = f.Close()
		}
		return err
	}
	return err
}

// openBase opens base.raw of a disk of size bytes; if growing isn't 0, the file may be on its way to that many.
func openBase(fsys vfs.FS, size, growing int64) (vfs.File, error) {
	f, err := fsys.Open(baseName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoBase
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", baseName, err)
	}
	n, err := f.Size()
	switch {
	case err != nil:
		err = fmt.Errorf("%s: %w", baseName, err)
	case n < size:
		err = fmt.Errorf("%s: %d of %d bytes are missing: %w: %w", baseName, size-n, size, ErrBaseSize, ErrCorrupt)
	case n > max(size, growing):
		err = fmt.Errorf("%s: %d bytes more than the %d of the disk: %w: %w", baseName, n-size, size, ErrBaseSize, ErrCorrupt)
	default:
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

// open takes over the lock.
func open(dir string, o Options, lock io.Closer) (*Store, error) {
	d := &Store{
		o: o, fs: o.FS, log: o.Log, lock: lock,
		space: &space{fs: o.FS, reserve: o.Reserve},
		peers: map[string]*peer{}, sets: blockset.NewPool(hotSets), watchers: map[chan struct{}]string{},
		cuts:    cuts{mem: slab{limit: int(o.cutMemory / Block)}},
		trouble: make(chan string, 1), stop: make(chan struct{}), mergeWake: make(chan struct{}, 1), mergeTurn: newMergeTurn(),
		ripe: make(chan struct{}, 1),
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open disk in %s: %w", dir, err), d.release())
	}
	d.wg.Go(func() { d.keepHouse(d.stop) })
	if !o.mergeByHand {
		d.wg.Go(d.mergeLayers)
	}
	if o.Record != nil {
		d.wg.Go(d.recordQuiet)
	}
	return d, nil
}

func (d *Store) load() error {
	names, err := d.fs.List()
	if err != nil {
		return err
	}
	if d.j, err = openJournal(d.fs); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrNoJournal, ErrNoDisk)
		}
		return err
	}
	if err := refuseNewer(d.fs, names); err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasSuffix(n, vfs.TempSuffix) {
			_ = d.fs.Remove(n) // left by a crash; it would only take space
		}
	}
	d.id = d.j.h.id
	d.size.Store(d.j.h.size)
	if d.stack.base, err = openBase(d.fs, d.Size(), d.j.st.growing); err != nil {
		return err
	}
	if err := d.shrinkBase(); err != nil {
		return err
	}
	if d.epochs, err = openEpochs(d.fs); err != nil {
		return err
	}
	d.stack.size = d.Size()
	if err := d.openLayers(names); err != nil {
		return err
	}
	if err := d.recover(); err != nil {
		return err
	}
	if err := d.openHashes(); err != nil {
		return err
	}
	d.touchLayers()
	if err := d.openHydration(names); err != nil {
		return err
	}
	if err := d.epochs.scan(d.position, d.Size()); err != nil {
		return err
	}
	// A process that was killed may have left a commit in the kernel only: base.raw must not be ahead of what is durable, nor
	// may the position that this disk says.
	if err := d.epochs.makeDurable(); err != nil {
		return err
	}
	d.position = d.epochs.last
	if err := d.settle(); err != nil {
		if !outOfSpace(err) {
			return err
		}
		d.log.Warn("No space to apply what was received", "disk", d.id, "err", err)
	}
	if err := d.epochs.renew(d.fs); err != nil && !outOfSpace(err) {
		return err // without space it stays what it is, and is written as that
	}
	if err := d.loadPeers(names); err != nil {
		return err
	}
	if err := d.whole(); err != nil {
		return err
	}
	if d.complete && d.hydration.Load() == nil {
		d.follows(d.position)
	}
	return nil
}

// recover stores the journal anew, which drops a torn end, and gives a disk that was written when its
// owner died a position of its own: no other device has it, so nobody takes that content for theirs.
func (d *Store) recover() error {
	st := d.j.snapshot()
	died := st.owned() && !st.exact
	if died {
		if err := d.stack.sync(); err != nil {
			return err
		}
	}
	err := d.j.commit(func(st *state) {
		if died {
			st.position = Position{st.activated, st.reserved + 1}
			st.reserved += reserveStep
			st.exact = true
		}
		st.growing = 0
	})
	if err != nil {
		return err
	}
	st = d.j.snapshot()
	if d.incoming != nil {
		i := slices.IndexFunc(st.layers, func(r layerRef) bool { return r.role == roleIncoming })
		st.copy, d.checkpoint = st.layers[i].copy, st.layers[i].position
	}
	d.complete, d.copy, d.position, d.ends, d.given = st.complete, st.copy, st.position, st.ends, st.given
	d.reserved, d.counter = st.reserved, max(st.reserved, st.position.Barrier)
	d.doubt = st.check
	d.reconsider()
	d.al = newActivity(d.j, d.Size(), st.regions)
	return nil
}

// Close makes everything durable and closes the disk, its feeds and its applier. Writes under way end first. It may be
// called more than once.
func (d *Store) Close() error {
	d.role.Lock()
	defer d.role.Unlock()
	d.gate.Lock()
	d.mu.Lock()
	again, active, a := d.closed, d.active && d.err == nil, d.applier
	d.fenced, d.closed = true, true
	d.reconsider()
	for _, p := range d.peers {
		p.detach()
	}
	d.mu.Unlock()
	d.gate.Unlock()
	if again {
		return nil
	}
	close(d.stop)
	if y := d.hydration.Load(); y != nil {
		y.h.Close()
	}
	d.wg.Wait()
	var err error
	if a != nil {
		err = a.Close()
	}
	if active {
		err = errors.Join(err, d.save(), d.j.syncTo(math.MaxUint64))
	}
	d.mu.Lock()
	d.active = false
	d.reconsider()
	d.mu.Unlock()
	d.closeCuts()
	if err = errors.Join(err, d.release()); err != nil {
		return fmt.Errorf("close disk: %w", err)
	}
	return nil
}

// release closes the files, after the reads under way.
func (d *Store) release() error {
	d.rd.Lock()
	defer d.rd.Unlock()
	var errs []error
	if d.epochs != nil {
		errs = append(errs, d.epochs.f.Close())
	}
	if d.hashes != nil {
		errs = append(errs, d.hashes.close())
	}
	errs = append(errs, d.stack.close())
	if d.incoming != nil {
		errs = append(errs, d.incoming.Close())
	}
	if d.j != nil {
		errs = append(errs, d.j.close())
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// Info is what there is to know of a disk.
type Info struct {
	ID        ID
	Size      int64 // bytes
	Allocated int64 // bytes that base.raw and the layers above it take
	Complete  bool
	Active    bool
	Fenced    bool
	Applying  bool
	// Owned says that the disk was active under Term, and has not given it away.
	Owned bool
	// Term is the highest this disk has seen, Given the highest that it gave away.
	Term, Given uint64
	Position    Position
	// Unflushed says that something was written after Position.
	Unflushed bool
	// Stale is how many bytes of the disk aren't here yet (Hydrate); while Hydrating the disk can be rolled back, to Before.
	Stale int64
	// Written is how many bytes of it the guest has written since it is: what a rollback would lose.
	Written   int64
	Hydrating bool
	Before    Position
	// Recorded is how many bytes of base.raw have recorded hashes, as far as this is known since the disk was opened: what is written just now counts still.
	Recorded int64
	// Err is why the disk refuses to work, if it does.
	Err error
	// NeedsCheck is the first I/O error since the last clean check (Check), or nothing. It is kept when the disk is closed.
	NeedsCheck string
	Peers      []PeerInfo
}

// Info says what there is to know.
func (d *Store) Info() Info {
	i := Info{ID: d.id, Size: d.Size(), Peers: d.Peers()}
	d.rd.RLock()
	i.Allocated, _ = d.stack.allocated() // 0 if that can't be told
	d.rd.RUnlock()
	i.Recorded = d.hashes.bytes()
	newest, activated, given := d.j.terms()
	d.mu.Lock()
	defer d.mu.Unlock()
	i.Complete, i.Active, i.Fenced, i.Applying = d.complete, d.active, d.fenced, d.applier != nil
	i.Position, i.Unflushed, i.Err, i.NeedsCheck = d.position, d.unflushed(), d.err, d.doubt
	i.Term, i.Given = max(newest, d.position.Term), given
	i.Owned = activated > given && activated == i.Term
	if y := d.hydration.Load(); y != nil {
		i.Hydrating, i.Stale, i.Before = true, y.h.Progress().Left, y.before
		i.Written = y.written.Present() * Block
	}
	if i.Err == nil {
		i.Err = d.unapplied
	}
	return i
}

// unflushed says that the disk isn't at position. The caller holds mu.
func (d *Store) unflushed() bool { return d.wrote || d.syncing }

// Position is the newest barrier of an owner, or what a replica is. For an incomplete replica it is its last checkpoint.
func (d *Store) Position() Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.position
}
