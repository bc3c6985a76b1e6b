package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/vmdisk/hydrate"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// hydraPiece is what is never torn.
const hydraPiece = modelSector / 2

// hydraModel is a guest on a disk that hydrates, and what it was told. The newest content of the owner before counts as
// durable from the beginning.
type hydraModel struct {
	*lagging
	t *testing.T
	r *rand.Rand
	// now is what the guest must read; maybe is what a sector may also be after a power cut.
	now, durable []byte
	maybe        map[int][][]byte
	active       bool // Activate has succeeded once
	told         bool // SetStale has
	rolled       bool
	broken       bool // a fault was injected
	log          []string
}

func (m *hydraModel) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

func (m *hydraModel) fatal(format string, args ...any) {
	m.t.Helper()
	for _, l := range m.log[max(0, len(m.log)-30):] {
		m.t.Log(l)
	}
	m.t.Fatalf(format, args...)
}

// TestHydrationModel drives a disk that hydrates at random, with power cuts at any call, killed processes, sources that
// fail, and rollbacks. Every block is the last write or what the owner before had, never older, never a mixture.
func TestHydrationModel(t *testing.T) {
	if *modelSeed != 0 {
		runHydraModel(t, *modelSeed)
		return
	}
	for seed := range uint64(*modelRuns) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) { runHydraModel(t, seed+1) })
	}
}

func runHydraModel(t *testing.T, seed uint64) {
	g := newLagging(t, seed)
	m := &hydraModel{
		lagging: g, t: t, r: rand.New(rand.NewPCG(seed, 8)), maybe: map[int][][]byte{},
		now: bytes.Clone(g.newest), durable: bytes.Clone(g.newest),
	}
	defer func() {
		m.mem.FailAt(0, nil, false)
		_ = m.d.Close()
	}()
	for range 100 {
		m.step()
		if m.rolled {
			break
		}
	}
	m.mem.FailAt(0, nil, false)
	if m.rolled {
		return
	}
	if m.broken {
		m.crash()
	}
	m.begin()
	m.ok("hydrate", m.d.Hydrate(context.Background(), m.src))
	m.look("the end")
	mergeAll(t, m.d)
	m.look("the end, merged")
}

// ok says whether err is nil; an error that no injected fault explains ends the test.
func (m *hydraModel) ok(what string, err error) bool {
	m.t.Helper()
	if err == nil {
		return true
	}
	m.note("%s: %v", what, err)
	if m.broken && (errors.Is(err, vfs.ErrGone) || errors.Is(err, ErrFailed) || errors.Is(err, ErrClosed)) {
		m.crash()
		return false
	}
	m.fatal("%s: %v", what, err)
	return false
}

// begin goes as far as being active.
func (m *hydraModel) begin() bool {
	m.t.Helper()
	for tries := 0; !m.rolled && !m.d.Info().Active; tries++ {
		if tries > 5 {
			m.fatal("never gets active")
		}
		if !m.told {
			if !m.ok("set stale", m.d.SetStale(m.stale.AppendTo(nil), m.at)) {
				continue
			}
			m.told = true
		}
		if m.ok("activate", m.d.Activate(2)) {
			m.active = true
		}
	}
	return !m.rolled
}

func (m *hydraModel) step() {
	if m.r.IntN(12) == 0 && !m.broken {
		n := 1 + m.r.IntN(25)
		m.note("power fails at call %d", n)
		m.mem.FailAt(n, vfs.ErrGone, true)
		m.broken = true
	}
	if !m.begin() {
		return
	}
	switch x := m.r.IntN(100); {
	case x < 45:
		m.write()
	case x < 60:
		m.note("flush")
		if m.ok("flush", m.d.Flush()) {
			m.settled()
		}
	case x < 75:
		m.fetch(m.r.IntN(4))
	case x < 80:
		m.note("save")
		m.ok("save", m.d.save())
	case x < 87:
		m.note("merge")
		_, err := m.d.mergeBottom(context.Background())
		m.ok("merge", err)
	case x < 90:
		m.note("read")
		m.look("a read")
	case x < 93:
		m.note("restart")
		if m.ok("close", m.d.Close()) {
			m.settled()
			m.back(true)
		}
	case x < 99:
		m.crash()
	default:
		if m.r.IntN(3) == 0 {
			m.rollback()
		}
	}
}

func (m *hydraModel) settled() {
	copy(m.durable, m.now)
	clear(m.maybe)
}

// fetch lets a source answer n times.
func (m *hydraModel) fetch(n int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var calls atomic.Int64
	m.src.fetch = func(context.Context, int64, int) error {
		if calls.Add(1) > int64(n) {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	m.note("fetch %d", n)
	err := m.d.Hydrate(ctx, m.src)
	m.src.fetch = nil
	if m.broken && errors.Is(err, hydrate.ErrClosed) || !errors.Is(err, context.Canceled) || errors.Is(err, ErrFailed) {
		m.ok("hydrate", err)
	}
}

func (m *hydraModel) write() {
	off := m.r.Int64N(hydraSize)
	if x := m.stale.Next(off/Block, true); m.r.IntN(3) > 0 && x < hydraSize/Block {
		off = x*Block + m.r.Int64N(Block)
	}
	n := 1 + m.r.Int64N(3*Block)
	if m.r.IntN(2) == 0 {
		off, n = off/Block*Block, (n+Block-1)/Block*Block
	}
	// A power cut doesn't tear sectors, and a failing write ends half-way.
	off, n = off/modelSector*modelSector, (n+modelSector-1)/modelSector*modelSector
	n = min(n, hydraSize-off)
	p := make([]byte, n)
	kind := m.r.IntN(4)
	fua := m.r.IntN(8) == 0
	m.note("write %d at %d, kind %d, fua %v", n, off, kind, fua)
	var err error
	switch kind {
	case 0:
		err = m.d.Zero(off, n, m.r.IntN(2) == 0, fua)
	case 1:
		err = m.d.Trim(off, n, fua)
	default:
		fillRandom(m.r, p)
		err = m.d.WriteAt(p, off, fua)
	}
	if errors.Is(err, ErrStale) {
		return
	}
	before := bytes.Clone(m.now[off/hydraPiece*hydraPiece : min(hydraSize, (off+n+hydraPiece-1)/hydraPiece*hydraPiece)])
	copy(m.now[off:], p)
	for s := int(off / hydraPiece); s <= int((off+n-1)/hydraPiece); s++ {
		i := s - int(off/hydraPiece)
		m.maybe[s] = append(m.maybe[s], before[i*hydraPiece:(i+1)*hydraPiece], bytes.Clone(m.now[s*hydraPiece:(s+1)*hydraPiece]))
	}
	if m.ok("write", err) && fua {
		m.settled()
	}
}

// look compares everything that isn't stale.
func (m *hydraModel) look(when string) {
	m.t.Helper()
	for x := int64(0); x < hydraSize; x += Block {
		if m.d.Stale(x, Block) {
			continue
		}
		var p [Block]byte
		if err := m.d.ReadAt(p[:], x); err != nil {
			m.ok("read", err)
			return
		}
		if !bytes.Equal(p[:], m.now[x:x+Block]) {
			m.fatal("%s: block %d isn't what was written (old: %v, stale: %v)", when, x/Block, bytes.Equal(p[:], m.old[x:x+Block]), m.stale.Has(x/Block))
		}
	}
}

func (m *hydraModel) crash() {
	m.t.Helper()
	loss := vfs.Loss(m.r.IntN(3))
	m.note("crash, loss %d", loss)
	m.mem = m.mem.Crash(loss, m.r.Uint64())
	_ = m.d.Close()
	m.back(loss == vfs.LoseNothing && !m.broken)
}

// back opens the disk again; all says that nothing may be lost.
func (m *hydraModel) back(all bool) {
	m.t.Helper()
	m.broken = false
	m.mem.FailAt(0, nil, false)
	var err error
	if m.d, err = Open("", hydraOptions(m.mem)); err != nil {
		m.fatal("open: %v", err)
	}
	i := m.d.Info()
	if !m.told && !i.Hydrating {
		if i.Position != m.before {
			m.fatal("at %s", i.Position)
		}
		same(m.t, m.d, m.old)
		return
	}
	m.told = true
	if i.Position.Compare(m.at) < 0 {
		m.fatal("fell back to %s", i.Position)
	}
	for x := int64(0); x < hydraSize; x += Block {
		var p [Block]byte
		if m.d.Stale(x, Block) {
			// It will be what the owner before had: it must not have been written and flushed.
			copy(p[:], m.src.content[x:])
		} else if err := m.d.ReadAt(p[:], x); err != nil {
			m.fatal("read: %v", err)
		}
		for at := 0; at < Block; at += hydraPiece {
			s := (int(x) + at) / hydraPiece
			got := p[at : at+hydraPiece]
			good := bytes.Equal(got, m.now[s*hydraPiece:(s+1)*hydraPiece])
			if !all {
				good = good || bytes.Equal(got, m.durable[s*hydraPiece:(s+1)*hydraPiece])
				for _, v := range m.maybe[s] {
					good = good || bytes.Equal(got, v)
				}
			}
			if !good {
				m.fatal("sector %d (block %d, stale %v then, %v now) is nothing that it may be; nothing lost: %v; old: %v", s, x/Block,
					m.stale.Has(x/Block), m.d.Stale(x, Block), all, bytes.Equal(got, m.old[s*hydraPiece:(s+1)*hydraPiece]))
			}
		}
		copy(m.now[x:], p[:])
	}
	m.settled()
}

// rollback ends the model: the disk is what it was.
func (m *hydraModel) rollback() {
	m.t.Helper()
	m.note("roll back")
	if !m.d.Info().Hydrating {
		return
	}
	if !m.ok("fence", m.d.Fence()) {
		return
	}
	_, err := m.d.Rollback()
	if err != nil {
		if !m.broken {
			m.fatal("roll back: %v", err)
		}
		m.mem = m.mem.Crash(vfs.Loss(m.r.IntN(3)), m.r.Uint64())
		_ = m.d.Close()
		m.d, err = Open("", hydraOptions(m.mem))
		must(m.t, err)
		if m.d.Info().Hydrating {
			// The tries before must not have changed anything.
			must(m.t, m.d.Close())
			m.broken = true
			m.back(false)
			return
		}
	}
	m.rolled = true
	m.mem.FailAt(0, nil, false)
	if i := m.d.Info(); i.Position != m.before || i.Owned {
		m.fatal("%+v", i)
	}
	same(m.t, m.d, m.old)
	must(m.t, m.d.Close())
	m.d, err = Open("", hydraOptions(m.mem))
	if m.broken && err != nil {
		m.mem = m.mem.Crash(vfs.LoseNothing, 1)
		m.d, err = Open("", hydraOptions(m.mem))
	}
	must(m.t, err)
	same(m.t, m.d, m.old)
	must(m.t, m.d.Activate(3))
}
