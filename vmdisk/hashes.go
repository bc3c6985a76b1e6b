package vmdisk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"sync"

	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/blockset"
	"tagalong.org/tagalong/vmdisk/reclog"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	hashesName   = "hashes"
	hashesHeader = 4096
	slotMagic    = "TgHs"
	slotHeader   = 16
	hashUnit     = 64 << 10
	unitSum      = 16
	slotUnits    = regionSize / hashUnit
	slotSize     = slotHeader + slotUnits*unitSum + sumSize
)

// hashes are the recorded hashes of base.raw: what it was when all was well. Each region has a slot in a sparse file. A slot
// holds only while its region isn't changed, and that is kept without a sync per write:
//   - The guest's writes: a region in the activity log has no valid slot, whatever the file says. Before it leaves the log, its
//     slot is gone durably (forget).
//   - What else changes base.raw says so before (touch), and keeps what would change it again after a crash (the epoch log, a
//     layer) until the slots are gone durably (settle).
//
// An unreadable slot is none: it may be torn. Safe for concurrent use.
type hashes struct {
	fs        vfs.FS
	id        ID
	mu        sync.Mutex
	size      int64    // of the disk, in bytes
	f         vfs.File // nil: nothing is recorded
	sum       *blake3.Hasher
	stale     *blockset.Set // regions that were touched since settle
	readings  map[*reading]struct{}
	doomed    bool // the file must go before anything is counted on
	inherited bool // what the file reads as may not be durable: a process that was killed may have left it so
	buffer    []byte

	unrecorded unrecorded
	counted    *blockset.Set // regions whose slot was seen since the file was opened, and holds unless they are being written
	recorded   int64         // bytes of what these say
}

// reading is one look at a region; lost says that the region changed meanwhile.
type reading struct {
	region uint32
	lost   bool
}

// slot is what is recorded of one region.
type slot struct {
	data uint64 // a bit for each unit that isn't all zeros
	sums [slotUnits][unitSum]byte
}

func regionsOf(size int64) int64 { return (size + regionSize - 1) / regionSize }

// openHashes opens what is recorded, if there is anything. A header that can't be read makes all slots unreadable, which is
// ErrMalformed beside a usable answer. Errors otherwise: ErrVersion, those of the file.
func openHashes(fsys vfs.FS, id ID, size int64) (*hashes, error) {
	h := &hashes{
		fs: fsys, id: id, size: size, stale: blockset.New(int64(maxRegions)), readings: map[*reading]struct{}{},
		unrecorded: newUnrecorded(regionsOf(size)), counted: blockset.New(int64(maxRegions)),
	}
	f, err := fsys.Open(hashesName)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", hashesName, err)
	}
	salt, err := h.readHeader(f)
	if err != nil {
		err = fmt.Errorf("%s: %w", hashesName, err)
		if cerr := f.Close(); cerr != nil || !errors.Is(err, ErrMalformed) {
			return nil, errors.Join(err, cerr)
		}
		return h, err
	}
	h.f, h.sum, h.inherited = f, reclog.NewHasher(salt), true
	return h, nil
}

func (h *hashes) header(salt [32]byte) []byte {
	le := binary.LittleEndian
	b := hashesFormat.begin(make([]byte, 0, hashesHeader))
	b = append(b, h.id[:]...)
	b = le.AppendUint64(b, uint64(h.size))
	b = append(b, salt[:]...)
	return seal(b)
}

func (h *hashes) readHeader(f vfs.File) (salt [32]byte, err error) {
	const n = 16 + 16 + 8 + 32
	b := make([]byte, n+32)
	if m, err := f.ReadAt(b, 0); m < len(b) {
		if err = ended(err); err != nil {
			return salt, err
		}
		return salt, fmt.Errorf("header: %w", ErrMalformed)
	}
	_, err = hashesFormat.version(b)
	switch sum := blake3.Sum256(b[:n]); {
	case errors.Is(err, ErrForeign):
		return salt, fmt.Errorf("%w: %w", ErrMalformed, err)
	case err != nil:
		return salt, err
	case string(sum[:]) != string(b[n:]):
		return salt, fmt.Errorf("header: %w", ErrMalformed)
	case ID(b[16:32]) != h.id || binary.LittleEndian.Uint64(b[32:]) > uint64(h.size):
		return salt, fmt.Errorf("%w: %w", ErrMalformed, ErrWrongDisk)
	}
	return [32]byte(b[40:72]), nil
}

// unitBytes is how much the units in a mask of a region's are, on a disk of that size.
func unitBytes(size int64, r uint32, mask uint64) (sum int64) {
	for ; mask != 0; mask &= mask - 1 {
		off := int64(r)*regionSize + int64(bits.TrailingZeros64(mask))*hashUnit
		sum += max(0, min(hashUnit, size-off))
	}
	return sum
}

func slotAt(r uint32) int64 { return hashesHeader + int64(r)*slotSize }

// read is the slot of a region. It is nil if there is none; torn says that there is something unreadable.
func (h *hashes) read(r uint32) (s *slot, torn bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil, false, nil
	}
	b := h.room()
	if n, err := h.f.ReadAt(b, slotAt(r)); n < len(b) {
		clear(b[n:])
		if err = ended(err); err != nil {
			return nil, false, fmt.Errorf("%s: %w", hashesName, err)
		}
	}
	if isZero(b[:4]) {
		return nil, false, nil
	}
	le, end := binary.LittleEndian, slotSize-sumSize
	var sum [sumSize]byte
	if string(b[:4]) != slotMagic || le.Uint32(b[4:]) != r || string(reclog.Tag(h.sum, sum[:0], sumSize, b[:end])) != string(b[end:]) {
		return nil, true, nil
	}
	s = &slot{data: le.Uint64(b[8:])}
	for i := range s.sums {
		copy(s.sums[i][:], b[slotHeader+i*unitSum:])
	}
	h.count(r, s.data)
	return s, false, nil
}

// room is one slot's bytes. The caller holds mu.
func (h *hashes) room() []byte {
	if h.buffer == nil {
		h.buffer = make([]byte, slotSize)
	}
	return h.buffer
}

// watch begins a reading of a region.
func (h *hashes) watch(r uint32) *reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &reading{region: r, lost: h.stale.Has(int64(r))}
	h.readings[l] = struct{}{}
	return l
}

// done ends a reading, and says whether the region was left alone. If so and s isn't nil, it becomes the region's slot: durably
// only after sync. busy asks whether the region is in the activity log.
func (h *hashes) done(l *reading, busy func(uint32) bool, s *slot) (still bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readings, l)
	if l.lost || busy(l.region) {
		return false, nil
	}
	if s == nil {
		return true, nil
	}
	if h.doomed {
		return true, h.drop()
	}
	if h.f == nil {
		if err := h.create(); err != nil {
			return true, err
		}
	}
	le, b := binary.LittleEndian, append(h.room()[:0], slotMagic...)
	b = le.AppendUint32(b, l.region)
	b = le.AppendUint64(b, s.data)
	for _, u := range s.sums {
		b = append(b, u[:]...)
	}
	b = reclog.Tag(h.sum, b, sumSize, b)
	if _, err := h.f.WriteAt(b, slotAt(l.region)); err != nil {
		return true, fmt.Errorf("%s: %w", hashesName, err)
	}
	h.count(l.region, s.data)
	return true, nil
}

// create begins an empty file. The caller holds mu.
func (h *hashes) create() error {
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails
	if err := vfs.WriteNew(h.fs, hashesName, h.header(salt)); err != nil {
		return fmt.Errorf("%s: %w", hashesName, err)
	}
	f, err := h.fs.Open(hashesName)
	if err != nil {
		return fmt.Errorf("%s: %w", hashesName, err)
	}
	h.f, h.sum = f, reclog.NewHasher(salt)
	return nil
}

// sync makes what was recorded durable.
func (h *hashes) sync() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	if err := h.f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", hashesName, err), h.drop())
	}
	return nil
}

// touch says that n bytes at off of base.raw are about to be changed by something else than a write that is in the activity
// log, and that is kept until settle.
func (h *hashes) touch(off, n int64) {
	if n <= 0 {
		return
	}
	first, last := span(off, n)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stale.Add(int64(first), int64(last)+1)
	for l := range h.readings {
		l.lost = l.lost || l.region >= first && l.region <= last
	}
}

// grow says that the disk has so many bytes now.
func (h *hashes) grow(size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.size = size
}

// settle makes it durable that the touched regions have no slots. They must have their content by now.
func (h *hashes) settle() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.erase(h.stale); err != nil {
		return err
	}
	h.stale.Reset()
	return nil
}

// forgetTouched makes it durable that the touched regions have no slots, and they get none before settle.
func (h *hashes) forgetTouched() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.erase(h.stale)
}

// forget makes it durable that regions have no slots. They are still in the activity log.
func (h *hashes) forget(regions *blockset.Set) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.readings {
		l.lost = l.lost || regions.Has(int64(l.region))
	}
	return h.erase(regions)
}

// erase removes slots durably; if that fails, all of them. The caller holds mu.
func (h *hashes) erase(regions *blockset.Set) error {
	h.unrecorded.again(regions)
	if h.doomed {
		return h.drop()
	}
	if h.f == nil || regions.Empty() {
		return nil
	}
	if err := h.eraseSlots(regions); err != nil {
		if derr := h.drop(); derr != nil {
			return fmt.Errorf("%s: forget: %w", hashesName, errors.Join(err, derr))
		}
	}
	return nil
}

func (h *hashes) eraseSlots(regions *blockset.Set) error {
	var head [slotHeader]byte
	size, err := h.f.Size()
	if err != nil {
		return err
	}
	erased := false
	for r := regions.Next(0, true); r < regions.Blocks() && slotAt(uint32(r)) < size; r = regions.Next(r, true) {
		data, err := h.f.NextData(slotAt(uint32(r)))
		if err != nil {
			return err
		}
		if skip := (data - hashesHeader) / slotSize; skip > r {
			r = min(skip, regions.Blocks())
			continue
		}
		n, err := h.f.ReadAt(head[:], slotAt(uint32(r)))
		if err = ended(err); err != nil {
			return err
		}
		if !isZero(head[:n]) {
			// All of it: under the header alone the next slot's, of which nothing else may arrive in a power cut, would bring this one back.
			none := h.room()
			clear(none)
			if _, err := h.f.WriteAt(none, slotAt(uint32(r))); err != nil {
				return err
			}
			h.uncount(uint32(r), binary.LittleEndian.Uint64(head[8:]))
			erased = true
		}
		r++
	}
	if !erased && !h.inherited {
		return nil
	}
	if err := h.f.Sync(); err != nil {
		return err
	}
	h.inherited = false
	return nil
}

// reset forgets everything, durably.
func (h *hashes) reset() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.readings {
		l.lost = true
	}
	h.unrecorded.all(regionsOf(h.size))
	return h.drop()
}

// drop removes the file. The caller holds mu.
func (h *hashes) drop() error {
	if h.f == nil && !h.doomed {
		return nil
	}
	if h.f != nil {
		_ = h.f.Close() // some systems don't remove an open file
	}
	h.f, h.doomed, h.recorded = nil, true, 0
	h.counted.Reset()
	h.unrecorded.all(regionsOf(h.size))
	err := h.fs.Remove(hashesName)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err := errors.Join(err, h.fs.SyncDir()); err != nil {
		return fmt.Errorf("remove %s: %w", hashesName, err)
	}
	h.doomed = false
	return nil
}

// next is the first region from r on that may have a slot, or one beyond all.
func (h *hashes) next(r uint32) (uint32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := uint32(regionsOf(h.size))
	if h.f == nil || r >= all {
		return all, nil
	}
	size, err := h.f.Size()
	if err != nil {
		return r, fmt.Errorf("%s: %w", hashesName, err)
	}
	data, err := h.f.NextData(slotAt(r))
	if err != nil {
		return r, fmt.Errorf("%s: %w", hashesName, err)
	}
	if data >= size {
		return all, nil
	}
	return min(all, max(r, uint32((data-hashesHeader)/slotSize))), nil
}

func (h *hashes) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.f == nil {
		return nil
	}
	err := h.f.Close()
	h.f = nil
	return err
}
