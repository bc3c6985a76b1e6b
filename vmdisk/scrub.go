package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// maxDamage bounds Scrub.Damaged.
const maxDamage = 1000

// Pace limits the speed of work in the background (a throttle.Limit does). Its method may be called from any goroutine.
type Pace interface {
	// Wait returns when n more bytes may be read, or with ctx's error.
	Wait(ctx context.Context, n int64) error
}

// ScrubOptions say how to read a disk through. The zero value reads at full speed and changes nothing.
type ScrubOptions struct {
	// Throttle limits the speed (a throttle.Limit does); nil doesn't. It is asked before each piece of at most 64 KiB.
	Throttle Pace
	// Record makes hashes of what has none yet, for the next time. What is damaged stays so, and what has a hash keeps it.
	Record bool
	// Progress, if not nil, is called now and then, in bytes of the disk.
	Progress func(done, total int64)
}

// Scrub is what reading a disk through found, in bytes. Holes count nowhere: Verified+Unverified+Busy and the bytes of all damage
// are what was there to be read.
type Scrub struct {
	Verified   int64 // as they were when they were recorded
	Unverified int64 // read, but there was nothing to compare with
	Busy       int64 // read, but written meanwhile or lately, so that no recorded hash counts
	Recorded   int64 // of the unverified ones: they have hashes now
	// Damaged has the first places that couldn't be read or aren't what they were, in order; MoreDamaged is how many bytes of that
	// lie in further ones.
	Damaged     []Damage
	MoreDamaged int64
	// Torn counts the regions whose recorded hashes couldn't be read. A crash while they were recorded leaves such.
	Torn int
	// Unrecorded is why recording was given up, if it was: a full disk.
	Unrecorded error
}

// Damage is a range of the disk that isn't well.
type Damage struct {
	Off, Len int64 // bytes
	// Err is the error of reading; nil: it differs from what was recorded.
	Err error
}

// scrubber reads one base file through.
type scrubber struct {
	base   vfs.File
	size   func() int64 // of the disk, in bytes
	hashes *hashes
	busy   func(region uint32) bool
	// held does one read, with the file kept open and in place.
	held func(read func() error) error
	seen func(off int64, p []byte) // is shown what was read; may be nil
	o    ScrubOptions

	res Scrub
	buf []byte
	sum *blake3.Hasher
}

// Scrub reads all of base.raw, holes left out, and compares it with the hashes that were recorded; layers that aren't merged yet
// aren't read. The guest may go on writing. What it finds is in the result, also if there is an error too. What can't be read marks the disk
// (Info.NeedsCheck); nothing is ever repaired. One Scrub runs at a time; others wait. Errors: ErrIncomplete, ErrClosed, that of
// ctx, those of the file of hashes.
func (d *Store) Scrub(ctx context.Context, o ScrubOptions) (Scrub, error) {
	d.scrubMu.Lock()
	defer d.scrubMu.Unlock()
	s := d.scrubber(o)
	err := s.run(ctx)
	if err != nil {
		err = fmt.Errorf("scrub: %w", err)
	}
	return s.res, err
}

// scrubber reads the disk's base.raw.
func (d *Store) scrubber(o ScrubOptions) *scrubber {
	return &scrubber{buf: make([]byte, hashUnit), sum: blake3.New(), base: d.stack.base, size: d.Size, hashes: d.hashes, busy: d.al.has, seen: d.o.Seen, o: o, held: func(read func() error) error {
		d.rd.RLock()
		defer d.rd.RUnlock()
		d.mu.Lock()
		err := d.readable()
		d.mu.Unlock()
		if err != nil {
			return stopped{err}
		}
		return d.troubled("scrub", read())
	}}
}

// stopped is an error that ends a scrub; others are the file's.
type stopped struct{ error }

func (s stopped) Unwrap() error { return s.error }

func (s *scrubber) run(ctx context.Context) error {
	size := s.size()
	all := uint32(regionsOf(size))
	for r := uint32(0); r < all; r++ {
		next, err := s.next(r)
		if err != nil {
			return err
		}
		if r = next; r < all {
			if err := s.region(ctx, r); err != nil {
				return errors.Join(err, s.keep())
			}
		}
		if s.o.Progress != nil {
			s.o.Progress(min(size, int64(min(r+1, all))*regionSize), size)
		}
	}
	return s.keep()
}

// keep makes durable what was recorded.
func (s *scrubber) keep() error {
	if s.res.Recorded == 0 {
		return nil
	}
	return s.hashes.sync()
}

// next is the first region from r on that has data, or a slot.
func (s *scrubber) next(r uint32) (uint32, error) {
	slot, err := s.hashes.next(r)
	if err != nil || slot <= r {
		return r, err
	}
	data := int64(r) * regionSize
	err = s.held(func() (err error) {
		data, err = s.base.NextData(data)
		return err
	})
	var stop stopped
	if errors.As(err, &stop) {
		return r, stop.error
	}
	if err != nil {
		return r, nil // reading says what is wrong
	}
	if data >= s.size() {
		return slot, nil
	}
	return min(slot, max(r, uint32(data/regionSize))), nil
}

// region reads one region and compares it.
func (s *scrubber) region(ctx context.Context, r uint32) error {
	look := s.hashes.watch(r)
	want, torn, err := s.hashes.read(r)
	if err != nil {
		_, derr := s.hashes.done(look, s.busy, nil)
		return errors.Join(err, derr)
	}
	found, whole, bad, err := s.read(ctx, r)
	if err != nil {
		_, derr := s.hashes.done(look, s.busy, nil)
		return errors.Join(err, derr)
	}
	fresh := &found
	if !s.o.Record || s.res.Unrecorded != nil || want != nil || len(bad) > 0 || found.data == 0 {
		fresh = nil
	}
	still, err := s.hashes.done(look, s.busy, fresh)
	if outOfSpace(err) {
		s.res.Unrecorded, fresh, err = err, nil, nil
	}
	if err != nil {
		return err
	}
	read := unitBytes(s.size(), r, whole)
	switch {
	case !still:
		s.res.Busy += read
	case want == nil:
		s.res.Unverified += read
		if torn {
			s.res.Torn++
		}
		if fresh != nil {
			s.res.Recorded += read
		}
	default:
		bad = s.compare(r, want, &found, whole, bad)
	}
	for _, b := range bad {
		s.damaged(b)
	}
	return nil
}

// unit is where the unit u of a region is.
func (s *scrubber) unit(r uint32, u int) (off, n int64) {
	off = int64(r)*regionSize + int64(u)*hashUnit
	return off, min(hashUnit, s.size()-off)
}

// read is what a region contains now, and which of its units were read: the others are holes, or in bad.
func (s *scrubber) read(ctx context.Context, r uint32) (found slot, whole uint64, bad []Damage, err error) {
	start := int64(r) * regionSize
	end := min(s.size(), start+regionSize)
	data := start
	for off, u := start, 0; off < end; off, u = off+hashUnit, u+1 {
		n := min(hashUnit, end-off)
		if data >= off+n {
			continue
		}
		if s.o.Throttle != nil {
			err = s.o.Throttle.Wait(ctx, n)
		} else {
			err = ctx.Err()
		}
		if err != nil {
			return found, whole, bad, err
		}
		hole := false
		err = s.held(func() error {
			var err error
			if data, err = s.base.NextData(off); err == nil && data >= off+n {
				hole = true
				return nil
			}
			return readFull(s.base, s.buf[:n], off)
		})
		var stop stopped
		switch {
		case errors.As(err, &stop):
			return found, whole, bad, stop.error
		case err != nil:
			bad = append(bad, Damage{off, n, err})
			continue
		case hole:
			continue
		}
		whole |= 1 << u
		if !isZero(s.buf[:n]) {
			found.data |= 1 << u
			found.sums[u] = s.hash(s.buf[:n])
			if s.seen != nil {
				s.seen(off, s.buf[:n])
			}
		}
	}
	return found, whole, bad, nil
}

func (s *scrubber) hash(p []byte) [unitSum]byte {
	var sum [32]byte
	s.sum.Reset()
	_, _ = s.sum.Write(p) // never fails
	return [unitSum]byte(s.sum.Sum(sum[:0]))
}

// compare is what of a region is damaged: bad, and what differs. It counts what doesn't.
func (s *scrubber) compare(r uint32, want, found *slot, whole uint64, bad []Damage) (out []Damage) {
	for left := whole | want.data; left != 0; left &= left - 1 {
		u := bits.TrailingZeros64(left)
		off, n := s.unit(r, u)
		for len(bad) > 0 && bad[0].Off <= off {
			out, bad = append(out, bad[0]), bad[1:]
		}
		switch {
		case len(out) > 0 && out[len(out)-1].Off == off:
		case (want.data^found.data)>>u&1 == 1 || want.sums[u] != found.sums[u]:
			out = append(out, Damage{off, n, nil})
		default:
			s.res.Verified += n
		}
	}
	return append(out, bad...)
}

// damaged notes a place, as part of the one before if it goes on there.
func (s *scrubber) damaged(b Damage) {
	if k := len(s.res.Damaged) - 1; k >= 0 {
		last := &s.res.Damaged[k]
		if last.Off+last.Len == b.Off && (last.Err == nil) == (b.Err == nil) {
			last.Len += b.Len
			return
		}
	}
	if len(s.res.Damaged) == maxDamage {
		s.res.MoreDamaged += b.Len
		return
	}
	s.res.Damaged = append(s.res.Damaged, b)
}

// openHashes opens what is recorded, and forgets what a crash has left doubtful.
func (d *Store) openHashes() error {
	h, err := openHashes(d.fs, d.id, d.Size())
	if h == nil {
		return err
	}
	if err != nil {
		d.log.Warn("Recorded hashes are unreadable, the disk's content can't be compared with them", "disk", d.id, "err", err)
	}
	d.hashes = h
	return h.forget(d.al.logged(regionsOf(d.Size()), false))
}
