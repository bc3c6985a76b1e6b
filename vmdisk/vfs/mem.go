package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"syscall"
)

// Mem is a directory in memory that remembers what was not synced yet. Safe for concurrent use.
type Mem struct {
	mu     sync.Mutex
	names  map[string]*node // what a reader sees
	stable map[string]*node // what is left of the names after a power cut
	dirOps []dirOp
	locks  map[string]bool
	free   int64
	full   bool
	gone   bool
	made   int // files, ever

	calls   int
	failAt  int
	failErr error
	forever bool
	trace   func(*Mem)

	reflinks bool
}

// node is one file: the content that was synced, the content that a reader sees, and the
// operations that lead from the first to the second.
type node struct {
	made        int // the how-manieth file it is
	stable, now sparse
	ops         []fileOp
}

// fileOp is one change of a file. Its data never changes.
type fileOp struct {
	kind   opKind
	off, n int64
	data   []byte
	// content of opReflink; it is shared, and so never changed.
	content sparse
}

type opKind int

const (
	opWrite    opKind = 1 // data at off
	opZero     opKind = 2 // n bytes at off
	opTruncate opKind = 3 // to off
	opReflink  opKind = 4 // becomes content
)

type dirOp struct {
	name string
	n    *node // nil: removed
	old  string
}

// NewMem is an empty directory.
func NewMem() *Mem {
	return &Mem{names: map[string]*node{}, stable: map[string]*node{}, locks: map[string]bool{}, free: 1 << 50}
}

// SetFree sets what Free answers.
func (m *Mem) SetFree(n int64) { m.mu.Lock(); defer m.mu.Unlock(); m.free = n }

// SetFull leaves no byte, or gives all back: from now on what needs new space fails with syscall.ENOSPC, from where it does on. What is there can be
// written over.
func (m *Mem) SetFull(full bool) { m.mu.Lock(); defer m.mu.Unlock(); m.full = full }

// FailAt makes the n-th changing call from now on (1 is the next) fail with err, and all later ones too if forever.
// A failing WriteAt may have stored a part. n = 0 switches that off.
func (m *Mem) FailAt(n int, err error, forever bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls, m.failAt, m.failErr, m.forever = 0, n, err, forever
}

// Calls is the number of changing calls since the last FailAt.
func (m *Mem) Calls() int { m.mu.Lock(); defer m.mu.Unlock(); return m.calls }

// Trace calls fn after every changing call, also one that failed, with what would be there if nothing more happened: a
// copy, which costs little, to be asked for After. fn must not use m. nil ends it.
func (m *Mem) Trace(fn func(*Mem)) { m.mu.Lock(); defer m.mu.Unlock(); m.trace = fn }

// enter counts a changing call. The caller holds m.mu, and calls leave if the answer isn't ErrGone.
func (m *Mem) enter() error {
	if m.gone {
		return ErrGone
	}
	m.calls++
	if m.failAt > 0 && (m.calls == m.failAt || m.forever && m.calls > m.failAt) {
		return m.failErr
	}
	return nil
}

// leave ends a changing call. The caller holds m.mu.
func (m *Mem) leave() {
	if m.trace != nil && !m.gone {
		m.trace(m.copy())
	}
}

// copy is the same state once more. The caller holds m.mu.
func (m *Mem) copy() *Mem {
	out := NewMem()
	out.free, out.full, out.made = m.free, m.full, m.made
	twins := map[*node]*node{}
	twin := func(n *node) *node {
		if n == nil {
			return nil
		}
		if twins[n] == nil {
			twins[n] = &node{n.made, n.stable.copy(), n.now.copy(), n.ops[:len(n.ops):len(n.ops)]}
		}
		return twins[n]
	}
	for name, n := range m.names {
		out.names[name] = twin(n)
	}
	for name, n := range m.stable {
		out.stable[name] = twin(n)
	}
	for _, op := range m.dirOps {
		out.dirOps = append(out.dirOps, dirOp{op.name, twin(op.n), op.old})
	}
	return out
}

// Open is FS.Open.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return nil, ErrGone
	}
	n := m.names[name]
	if n == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &memFile{m: m, n: n}, nil
}

// Create is FS.Create.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.leave()
	if err := m.enter(); err != nil {
		return nil, err
	}
	if m.names[name] != nil {
		return nil, fmt.Errorf("create %s: %w", name, fs.ErrExist)
	}
	m.made++
	n := &node{made: m.made}
	m.names[name] = n
	m.dirOps = append(m.dirOps, dirOp{name: name, n: n})
	return &memFile{m: m, n: n}, nil
}

// Rename is FS.Rename.
func (m *Mem) Rename(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.leave()
	if err := m.enter(); err != nil {
		return err
	}
	n := m.names[old]
	if n == nil {
		return fmt.Errorf("rename %s: %w", old, fs.ErrNotExist)
	}
	delete(m.names, old)
	m.names[new] = n
	m.dirOps = append(m.dirOps, dirOp{name: new, n: n, old: old})
	return nil
}

// Remove is FS.Remove.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.leave()
	if err := m.enter(); err != nil {
		return err
	}
	if m.names[name] == nil {
		return fmt.Errorf("remove %s: %w", name, fs.ErrNotExist)
	}
	delete(m.names, name)
	m.dirOps = append(m.dirOps, dirOp{name: name})
	return nil
}

// List is FS.List.
func (m *Mem) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return nil, ErrGone
	}
	var names []string
	for n := range m.names {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir is FS.SyncDir.
func (m *Mem) SyncDir() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.leave()
	if err := m.enter(); err != nil {
		return err
	}
	for _, op := range m.dirOps {
		op.apply(m.stable)
	}
	m.dirOps = nil
	return nil
}

func (op dirOp) apply(names map[string]*node) {
	if op.old != "" {
		delete(names, op.old)
	}
	if op.n == nil {
		delete(names, op.name)
		return
	}
	names[op.name] = op.n
}

// Lock is FS.Lock.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, ErrLocked
	}
	m.locks[name] = true
	return unlocker(func() { m.mu.Lock(); defer m.mu.Unlock(); delete(m.locks, name) }), nil
}

type unlocker func()

func (u unlocker) Close() error { u(); return nil }

// Free is FS.Free.
func (m *Mem) Free() (int64, error) { m.mu.Lock(); defer m.mu.Unlock(); return m.free, nil }

type memFile struct {
	m *Mem
	n *node
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.gone {
		return 0, ErrGone
	}
	return f.n.now.readAt(p, off)
}

func (n *node) do(op fileOp) {
	op.apply(&n.now)
	n.ops = append(n.ops, op)
}

func (op fileOp) apply(c *sparse) {
	switch op.kind {
	case opWrite:
		c.writeAt(op.data, op.off)
	case opZero:
		c.zero(op.off, op.n)
	case opReflink:
		*c = op.content
	default:
		c.truncate(op.off)
	}
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	defer f.m.leave()
	if err := f.m.enter(); err != nil {
		if half := len(p) / 2; half > 0 && !f.m.gone {
			f.n.do(fileOp{kind: opWrite, off: off, n: int64(half), data: slices.Clone(p[:half])})
			return half, err
		}
		return 0, err
	}
	var err error
	if f.m.full {
		if fits := f.n.now.within(off, int64(len(p))); fits < int64(len(p)) {
			p, err = p[:fits], syscall.ENOSPC
		}
	}
	if len(p) > 0 {
		f.n.do(fileOp{kind: opWrite, off: off, n: int64(len(p)), data: slices.Clone(p)})
	}
	return len(p), err
}

func (f *memFile) Close() error { return nil }

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.gone {
		return 0, ErrGone
	}
	return f.n.now.size, nil
}

func (f *memFile) change(op fileOp) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	defer f.m.leave()
	if err := f.m.enter(); err != nil {
		return err
	}
	f.n.do(op)
	return nil
}

func (f *memFile) Truncate(size int64) error { return f.change(fileOp{kind: opTruncate, off: size}) }

func (f *memFile) Punch(off, n int64) error {
	if n <= 0 {
		return nil
	}
	return f.change(fileOp{kind: opZero, off: off, n: n})
}

func (f *memFile) ZeroRange(off, n int64) error { return f.Punch(off, n) }

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	defer f.m.leave()
	if err := f.m.enter(); err != nil {
		return err
	}
	if len(f.n.ops) > 0 {
		f.n.stable, f.n.ops = f.n.now.copy(), nil
	}
	return nil
}

func (f *memFile) next(off int64, hole bool) (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.gone {
		return 0, ErrGone
	}
	return f.n.now.next(off, hole), nil
}

func (f *memFile) NextData(off int64) (int64, error) { return f.next(off, false) }
func (f *memFile) NextHole(off int64) (int64, error) { return f.next(off, true) }

func (f *memFile) Allocated() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.now.pages)) * memPage, nil
}
