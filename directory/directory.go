package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// Options says where a directory is and whose. Dir (or Store), Self, Sign and Verify are
// needed.
type Options struct {
	Dir  string // made with mode 0700 if it doesn't exist
	Self string // this device's ID
	// Sign signs as Self. Verify returns an error unless sig is id's signature
	// of msg. Both may be called from several goroutines, with untrusted input.
	Sign   func(msg []byte) ([]byte, error)
	Verify func(id string, msg, sig []byte) error
	Log    *slog.Logger // slog.Default if nil
	// Store, if not nil, keeps everything instead of Badger in Dir, which isn't used then: nothing is locked, and free space isn't
	// watched. The directory closes it.
	Store Store
}

// Directory is this device's copy of the directory. All methods may be called
// from several goroutines. Reads come from memory and never wait for the disk.
type Directory struct {
	opt   Options
	log   *slog.Logger
	now   func() time.Time // for what is shown
	store Store
	space *space
	lock  *flock.Flock
	stop  context.CancelFunc
	wg    sync.WaitGroup

	// write is held over a check and its commit, mu only while memory changes.
	// Whoever holds write may read the fields below without mu, but for chunks: who reads and pins them doesn't hold write.
	write   sync.Mutex
	pending map[string]SignedTransfer // signed by us, unsure whether stored
	unsure  map[string]bool           // replica records of which it isn't known whether a newer one was stored

	mu      sync.RWMutex
	closed  bool
	records map[string]Record // all that is sent to others
	bytes   int               // of their values
	devices map[string]Device
	vms     map[string]map[string]VM // by ID and key
	trees   map[string]*tree
	forks   map[string][]SignedTransfer
	notes   map[string]Note // by key
	// standings is what counts of all that was signed of a device.
	standings map[string]*membership
	members   map[string]Member // what is known here besides
	exile     exile
	strikes   map[string]*strikes
	local     map[string][]byte
	wakes     map[chan struct{}]struct{}

	replicas map[string]*heldReplica // by key
	arrivals uint64
	chunks   chunks

	putting sync.Mutex   // held over PutReplica; before write
	reads   sync.RWMutex // held over the store's Get, and by Close
}

// Open opens the directory, or makes an empty one. Errors: ErrInUse, ErrNoSpace,
// ErrVersion, ErrCorrupt, ErrInvalid.
func Open(opt Options) (*Directory, error) {
	d, err := newDirectory(opt)
	if err != nil {
		return nil, err
	}
	if opt.Store != nil {
		if err := d.load(opt.Store); err != nil {
			return nil, fmt.Errorf("directory: open: %w", errors.Join(err, opt.Store.Close()))
		}
		return d, nil
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory: open: %w", err)
	}
	d.lock = flock.New(filepath.Join(opt.Dir, "lock"))
	ok, err := d.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("directory: lock: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("directory: lock %q: %w", opt.Dir, ErrInUse)
	}
	d.space = &space{dir: opt.Dir, free: freeSpace, log: d.log}
	if err := d.open(); err != nil {
		_ = d.lock.Unlock()
		return nil, fmt.Errorf("directory: open %q: %w", opt.Dir, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.wg.Go(func() { d.space.watch(ctx) })
	return d, nil
}

func newDirectory(opt Options) (*Directory, error) {
	if !validID(opt.Self) || opt.Sign == nil || opt.Verify == nil {
		return nil, fmt.Errorf("directory: options: %w", ErrInvalid)
	}
	log := opt.Log
	if log == nil {
		log = slog.Default()
	}
	return &Directory{
		opt:       opt,
		log:       log,
		now:       time.Now,
		pending:   map[string]SignedTransfer{},
		unsure:    map[string]bool{},
		records:   map[string]Record{},
		devices:   map[string]Device{},
		vms:       map[string]map[string]VM{},
		trees:     map[string]*tree{},
		forks:     map[string][]SignedTransfer{},
		notes:     map[string]Note{},
		standings: map[string]*membership{},
		members:   map[string]Member{},
		strikes:   map[string]*strikes{},
		local:     map[string][]byte{},
		wakes:     map[chan struct{}]struct{}{},
		replicas:  map[string]*heldReplica{},
		chunks:    newChunks(),
	}, nil
}

func (d *Directory) open() error {
	d.space.spare.Lock()
	defer d.space.spare.Unlock()
	defer d.space.settled()
	if err := d.space.prepare(); err != nil {
		return err
	}
	s, err := openBadger(filepath.Join(d.opt.Dir, "db"), d.space.tight, d.log)
	if err != nil {
		return err
	}
	if d.space.tight {
		d.space.roomy = s.consolidate
	}
	if err := d.load(s); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// load reads all of s into memory and makes it the store.
func (d *Directory) load(s Store) error {
	format := ""
	err := s.Load(func(key string, value []byte) error {
		if key == formatKey {
			format = string(value)
			return nil
		}
		if strings.HasPrefix(key, ChunkPrefix) {
			return d.rememberChunk(key, true)
		}
		return d.remember(key, value)
	})
	if err != nil {
		return err
	}
	d.loadedChunks()
	d.store = s
	switch format {
	case formatVersion:
		return nil
	case "":
		if len(d.records)+len(d.local)+len(d.members) > 0 {
			return fmt.Errorf("no format: %w", ErrCorrupt)
		}
		return s.Commit(map[string][]byte{formatKey: []byte(formatVersion)})
	case "1":
		return d.climb()
	default:
		return fmt.Errorf("format %.20q: %w", format, ErrVersion)
	}
}

// climb brings a directory of format 1 to format 2, in one commit.
func (d *Directory) climb() error {
	entries := map[string][]byte{}
	if err := d.signMembers(entries); err != nil {
		return fmt.Errorf("from format 1: %w", err)
	}
	stored := maps.Clone(entries)
	stored[formatKey] = []byte(formatVersion)
	if err := d.store.Commit(stored); err != nil {
		return fmt.Errorf("from format 1: %w", err)
	}
	for _, key := range sortedKeys(entries) {
		if err := d.remember(key, entries[key]); err != nil {
			return fmt.Errorf("from format 1: %w", err)
		}
	}
	return nil
}

// Close waits for a commit under way and ends the directory: what is called
// later fails, but what is in memory can still be read.
func (d *Directory) Close() error {
	d.write.Lock()
	defer d.write.Unlock()
	if d.closed {
		return nil
	}
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	if d.stop != nil {
		d.stop()
	}
	d.wg.Wait()
	closeStore := d.store.Close
	if d.space != nil {
		closeStore = func() error { return d.space.around(d.store.Close) }
	}
	d.reads.Lock()
	err := closeStore()
	d.reads.Unlock()
	if d.lock != nil {
		err = errors.Join(err, d.lock.Unlock())
	}
	if err != nil {
		return fmt.Errorf("directory: close: %w", err)
	}
	return nil
}

// Room says whether there is room to write anything: nil, or ErrNoSpace.
func (d *Directory) Room() error {
	if d.space != nil {
		return d.space.check()
	}
	if s, ok := d.store.(interface{ Room() error }); ok {
		return s.Room()
	}
	return nil
}

// WithSpare runs fn, which needs a few MiB on the directory's file system. If that is full, what is kept there for opening the directory
// is given up for as long as fn runs; it shrinks by what fn leaves behind, so fn is for what is done a few times, to come up on a full disk.
// It returns what fn does.
func (d *Directory) WithSpare(fn func() error) error {
	if d.space == nil {
		return fn()
	}
	return d.space.around(fn)
}

// commit stores the entries durably, then changes memory. The caller holds
// write and has checked them. wake tells whether anybody wants to know.
func (d *Directory) commit(entries map[string][]byte, wake bool) error {
	if d.closed {
		return ErrClosed
	}
	if err := d.Room(); err != nil {
		return err
	}
	if err := d.store.Commit(entries); err != nil {
		return unsure(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range sortedKeys(entries) {
		if err := d.committed(key, entries[key]); err != nil {
			return unsure(err) // it was checked before: cannot happen
		}
	}
	if wake {
		d.wake()
	}
	return nil
}

// wake tells all who wait for a change. The caller holds mu.
func (d *Directory) wake() {
	for ch := range maps.Keys(d.wakes) {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// remember puts one stored entry into memory.
func (d *Directory) remember(key string, value []byte) error {
	if kindOf(key) == "local" {
		return d.rememberLocal(strings.TrimPrefix(key, "local/"), value)
	}
	r, err := decodeValue[Record](value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if r.Key != key {
		return fmt.Errorf("key %q: %w", r.Key, ErrCorrupt)
	}
	switch kindOf(key) {
	case "device":
		var dev Device
		if dev, err = readDevice(r); err == nil {
			d.devices[dev.ID] = dev
		}
	case "vm":
		var vm VM
		if vm, err = readVM(r); err == nil {
			if d.vms[vm.ID] == nil {
				d.vms[vm.ID] = map[string]VM{}
			}
			d.vms[vm.ID][key] = vm
		}
	case "transfer":
		var t SignedTransfer
		if t, err = readTransfer(r); err == nil {
			if d.trees[t.VM] == nil {
				d.trees[t.VM] = newTree()
			}
			err = d.trees[t.VM].add(t)
		}
	case "member":
		var m membership
		if m, err = readMember(r); err == nil {
			d.rememberMember(m)
		}
	case "vmnote":
		var n Note
		if n, err = readNote(r); err == nil {
			d.notes[key] = n
		}
	case "fork":
		var t SignedTransfer
		if t, err = readFork(r); err == nil && d.records[key].Key == "" {
			d.forks[t.VM] = append(d.forks[t.VM], t)
		}
	case replicaKind:
		err = d.rememberReplica(key, r)
	default:
		err = fmt.Errorf("kind of record: %w", ErrVersion)
	}
	if err != nil {
		return err
	}
	d.bytes += len(r.Value) - len(d.records[key].Value)
	d.records[key] = r
	return nil
}

// forget takes one deleted entry out of memory. Members are only ever forgotten all at once, and so is all of a VM.
func (d *Directory) forget(key string) {
	r := d.records[key]
	switch kindOf(key) {
	case "local":
		d.forgetLocal(strings.TrimPrefix(key, "local/"))
		return
	case "device":
		delete(d.devices, r.Writer)
	case "member":
		clear(d.standings)
		d.settleAgain()
	case replicaKind:
		d.forgetReplica(key)
	case "vm", "transfer", "fork", "vmnote":
		d.forgetOfVM(key)
	}
	d.bytes -= len(r.Value)
	delete(d.records, key)
}

// Changed returns a channel that gets a wake-up after every change of records
// or members (at least one after the last), and a function that ends that.
func (d *Directory) Changed() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakes[ch] = struct{}{}
	return ch, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.wakes, ch)
	}
}

// sign makes this device's record of a value.
func (d *Directory) sign(key string, version uint64, value []byte) (Record, error) {
	r := Record{Key: key, Version: version, Writer: d.opt.Self, Value: value}
	if err := r.checkSize(); err != nil {
		return r, err
	}
	sig, err := d.opt.Sign(r.message())
	if err != nil {
		return r, fmt.Errorf("sign: %w", err)
	}
	r.Sig = sig
	return r, r.checkSize()
}

func (d *Directory) verify(r Record) error {
	if err := d.opt.Verify(r.Writer, r.message(), r.Sig); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// put adds a record to what will be committed. A quarter of the room is kept for
// what this device has to say itself, and for who is to be a member no longer.
func (d *Directory) put(entries map[string][]byte, r Record) error {
	records, bytes := MaxRecords, maxBytes
	if r.Writer != d.opt.Self && !d.endsMembership(r) {
		records, bytes = records/4*3, bytes/4*3
	}
	old, known := d.records[r.Key]
	if !known && len(d.records)+len(entries) >= records || d.bytes+len(r.Value)-len(old.Value) > bytes {
		return ErrFull
	}
	b, err := encodeValue(r)
	if err != nil {
		return err
	}
	entries[r.Key] = b
	return nil
}
