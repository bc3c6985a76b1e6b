package fleetsim

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"testing/synctest"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/holders"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/hydrate"
)

// slot is what a device keeps of what its giver told it. A write is whole or isn't, and fails when the power has.
type slot struct {
	d *device
	b []byte
}

func (s *slot) Read() ([]byte, error) {
	if s.b == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(s.b), nil
}

func (s *slot) Write(b []byte) error {
	switch {
	case s.d.burnt():
		return errPower
	case s.d.full:
		return syscall.ENOSPC
	}
	s.b = slices.Clone(b)
	return nil
}

var errNoLink = errors.New("the link is lost")

// read reads a device's disk. What is stale is what it was when the disk was given: it would be fetched.
func (d *device) read() (*content, error) {
	disk := d.e.disk
	info := disk.Info()
	var r vmdisk.Reader = disk
	if d.rotten != nil {
		r = well{disk, d.rotten}
	}
	if !info.Hydrating {
		return read(r)
	}
	at := info.Position
	if info.Owned {
		at, _ = d.e.custody().HandedAt(info.Term)
	}
	was := d.w.truth.contents[at]
	if was == nil {
		d.w.fail("%s lacks blocks of %s, which never was", d.id, at)
		return &content{}, nil
	}
	return read(lacking{r, disk, was})
}

// lacking is a disk with what is stale in it as it was.
type lacking struct {
	vmdisk.Reader
	disk *vmdisk.Store
	was  *content
}

func (l lacking) ReadAt(p []byte, off int64) error {
	for at := int64(0); at < int64(len(p)); at += vmdisk.Block {
		b := p[at : at+vmdisk.Block]
		if !l.disk.Stale(off+at, vmdisk.Block) {
			if err := l.Reader.ReadAt(b, off+at); err != nil {
				return err
			}
			continue
		}
		for i := range sectors {
			if o := offset(i) - off - at; o >= 0 && o < vmdisk.Block {
				fill(b[o:o+sector], i, l.was[i])
			}
		}
	}
	return nil
}

// stuck says that a write waits for blocks that it writes in part.
func (d *device) stuck(r *request) bool {
	from, to := offset(r.from), offset(r.from)+int64(r.to-r.from)*sector
	for _, at := range [2]int64{from, to} {
		if at%vmdisk.Block != 0 && d.e.disk.Stale(at/vmdisk.Block*vmdisk.Block, vmdisk.Block) {
			return true
		}
	}
	return false
}

// fetches are what a disk asks for, until it is answered.
type fetches struct {
	mu   sync.Mutex
	open []*asked
}

type asked struct {
	off  int64
	p    []byte
	done chan error
}

// Room implements hydrate.Source.
func (f *fetches) Room() hydrate.Room {
	return hydrate.Room{Pull: 8 * hydrate.MaxFetch, Ahead: hydrate.MaxFetch, Piece: hydrate.MaxFetch}
}

// Fetch implements hydrate.Source.
func (f *fetches) Fetch(ctx context.Context, w hydrate.Want) error {
	a := &asked{w.Off, w.P, make(chan error, 1)}
	f.mu.Lock()
	f.open = append(f.open, a)
	f.mu.Unlock()
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		// The answerer may be writing to p.
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open = slices.DeleteFunc(f.open, func(o *asked) bool { return o == a })
		return ctx.Err()
	}
}

// first takes the one with the lowest offset: the order must not depend on the computer.
func (f *fetches) first() *asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.open) == 0 {
		return nil
	}
	slices.SortFunc(f.open, func(a, b *asked) int { return int(a.off - b.off) })
	a := f.open[0]
	f.open = f.open[1:]
	return a
}

// hydrates says that this device is the owner of a disk that lacks blocks.
func (e *engine) hydrates() bool {
	if e.disk == nil || !e.owner() || e.d.burnt() {
		return false
	}
	info := e.disk.Info()
	return info.Hydrating && info.Active
}

// hydrate fetches some of what the disk lacks from one of those who have it; false if that can't be now.
func (e *engine) hydrate() bool {
	d, w := e.d, e.d.w
	if !e.hydrates() {
		return false
	}
	for _, p := range w.others(d) {
		if w.lends(d, p) && e.hydrateFrom(p) {
			return true
		}
	}
	return false
}

// lends says whether p would lend its copy to d, as app.lender does.
func (w *world) lends(d, p *device) bool {
	if p.e == nil || p.e.disk == nil || p.burnt() || !w.net.linked(d.id, p.id) {
		return false
	}
	if s := p.e.machine.State(); s != baton.Replica && s != baton.Given {
		return false
	}
	term, owner, ok := p.e.dir.Owner(vmID)
	c := p.e.custody()
	at, handed := c.HandedTo(term, d.id)
	own, _ := d.e.custody().HandedAt(term)
	return ok && owner == d.id && term == d.e.disk.Info().Term && handed && at == own && c.Stand() == custody.Behind
}

func (e *engine) hydrateFrom(p *device) bool {
	d, w := e.d, e.d.w
	lent, state, err := holders.Lend(context.Background(), p.e.disk)
	if err != nil {
		return false
	}
	defer lent.Close()
	lacks, err := holders.Judge(e.disk, p.id)(state)
	if err != nil {
		return false
	}
	before := e.disk.Info().Stale
	left := 1 + w.rng.IntN(12)
	if w.healing {
		left = 1 << 20
	}
	ctx, cancel := context.WithCancel(context.Background())
	src, ended := &fetches{}, make(chan error, 1)
	go func() { ended <- e.disk.Hydrate(ctx, src) }()
	for ; left > 0; left-- {
		synctest.Wait()
		a := src.first()
		if a == nil {
			break
		}
		err := w.answer(lent, w.saboteur.lacks(lacks), a)
		was := slices.Clone(a.p)
		w.writesMeanwhile(d)
		a.done <- err
		synctest.Wait()
		w.saboteur.answered(d, a, was)
	}
	synctest.Wait()
	cancel()
	err = <-ended
	now := e.disk.Info()
	w.note("%s fetches from %s: %d bytes were stale, %d are: %v", d.id, p.id, before, now.Stale, err)
	if err != nil && !errors.Is(err, context.Canceled) {
		w.trouble(d, "hydrate", err)
	}
	d.touched = true
	w.acts.hydrated += int(before-now.Stale) / vmdisk.Block
	if !now.Hydrating {
		w.acts.whole++
	}
	return now.Stale < before || !now.Hydrating
}

// writesMeanwhile lets the guest write whole blocks while some are on their way, perhaps the same: what it writes stays.
func (w *world) writesMeanwhile(d *device) {
	if w.healing || w.rng.IntN(3) != 0 || d.guest == nil || d.guest.kind != running || d.guest.flight != nil || d.e.disk.Info().Fenced {
		return
	}
	if r := w.newRequest(d); !d.stuck(r) {
		w.guestWrites(d, r)
	}
}

// answer answers what is asked for, if the holder has all of it.
func (w *world) answer(lent *holders.Lent, lacks fetch.Lacks, a *asked) error {
	for off := a.off; lacks != nil && off < a.off+int64(len(a.p)); off += vmdisk.Block {
		if no, _ := lacks(off); no {
			return fetch.ErrNoHolder
		}
	}
	if w.saboteur == wholeEarly && w.rng.IntN(4) == 0 {
		return nil
	}
	return lent.ReadAt(a.p, a.off)
}

// wentBack notes that a disk which lacked blocks is again what it was before, if it is: it has been judged, or given back.
func (d *device) wentBack(before vmdisk.Info) {
	if d.e.disk == nil || !before.Hydrating {
		return
	}
	if now := d.e.disk.Info(); !now.Hydrating && !now.Active && now.Position == before.Before {
		d.w.note("%s's disk is again what it was at %s", d.id, now.Position)
		d.owned, d.last, d.touched = false, now.Position, true
	}
}
