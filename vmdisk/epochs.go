package vmdisk

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cespare/xxhash/v2"
	"github.com/zeebo/blake3"
	"tagalong.org/tagalong/vmdisk/reclog"
	"tagalong.org/tagalong/vmdisk/vfs"
)

const (
	epochsName   = "epochs"
	epochsHeader = 80
	frameMagic   = "TgEf"
	frameHeader  = 56
	headSum      = 8
	sumSize      = 16
	epochsBuffer = 1 << 20
	// epochsRead is how much is read at a time, in bytes: what is in the processor's cache when it is used. Longer data is read to its place.
	epochsRead = 64 << 10
	// epochsDirect is how long a frame's data must be to go into the file without being collected first, in bytes.
	epochsDirect = 256 << 10

	frameWrite  = 1
	frameZero   = 2
	frameCommit = 3
)

// frame is one entry of the epoch log; off and n are term and barrier for a commit.
type frame struct {
	kind   byte
	epoch  uint64
	off, n uint64
}

// epochLog is a replica's write-ahead log. What is before committed is a sequence of whole epochs; it becomes
// durable with the sync that follows each commit. Every frame's checksum covers that of the frame before it, so that
// no mixture of old and new frames can be taken for a log. While an owner is followed, a log whose epochs are all in base.raw is written anew
// from its beginning, over what is there: that takes no new space, which is what makes the writes and the syncs of a file dear. Not safe for concurrent use.
type epochLog struct {
	f       vfs.File
	version uint32
	sum     *blake3.Hasher
	// The file has what is before size; buf, not written yet, belongs there.
	buf  []byte
	size int64
	// whole is the epoch of the last commit, if it was short: what was buf, valid until the next add.
	whole []byte

	chain [sumSize]byte
	epoch uint64 // of the next frame

	cut bool // scan has cut something off

	// The last commit, and what base.raw has.
	committed, applied mark
	last               Position
}

// mark is a place between two frames.
type mark struct {
	at    int64
	chain [sumSize]byte
	epoch uint64
}

// openEpochs opens the log, or makes an empty one.
func openEpochs(fsys vfs.FS) (*epochLog, error) {
	f, err := fsys.Open(epochsName)
	if errors.Is(err, fs.ErrNotExist) {
		if err = vfs.WriteNew(fsys, epochsName, newEpochsHeader()); err == nil {
			f, err = fsys.Open(epochsName)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("epoch log: %w", err)
	}
	e, err := readEpochs(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return e, nil
}

func newEpochsHeader() []byte {
	b := epochsFormat.begin(make([]byte, 0, epochsHeader))
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails
	b = append(b, salt[:]...)
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

func readEpochs(f vfs.File) (*epochLog, error) {
	h := make([]byte, epochsHeader)
	if err := readFull(f, h, 0); err != nil {
		return nil, fmt.Errorf("%s: header: %w: %w", epochsName, ErrCorrupt, err)
	}
	version, err := epochsFormat.version(h)
	switch {
	case errors.Is(err, ErrForeign):
		return nil, fmt.Errorf("%s: %w: %w", epochsName, ErrCorrupt, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", epochsName, err)
	}
	if sum := blake3.Sum256(h[:48]); string(sum[:]) != string(h[48:]) {
		return nil, fmt.Errorf("%s: header: %w", epochsName, ErrCorrupt)
	}
	start := mark{at: epochsHeader}
	return &epochLog{f: f, version: version, sum: reclog.NewHasher([32]byte(h[16:48])), size: epochsHeader, committed: start, applied: start}, nil
}

func (e *epochLog) appendFrame(b []byte, fr frame, chain [sumSize]byte, data []byte) []byte {
	return append(e.appendHeader(b, fr, chain, data), data...)
}

// appendHeader appends the header of a frame with that data, which is what links it to the one before.
func (e *epochLog) appendHeader(b []byte, fr frame, chain [sumSize]byte, data []byte) []byte {
	le, start := binary.LittleEndian, len(b)
	b = append(b, frameMagic...)
	b = append(b, fr.kind, 0, 0, 0)
	b = le.AppendUint64(b, fr.epoch)
	b = le.AppendUint64(b, fr.off)
	b = le.AppendUint64(b, fr.n)
	b = reclog.Tag(e.sum, b, headSum, b[start:])
	var room [8]byte
	return reclog.Tag(e.sum, b, sumSize, chain[:], b[start:], e.digest(&room, data))
}

// digest is what of a frame's data is in the frame's tag: from version 2 on its XXH64, in room. The tag tells what was written from what a power cut
// left of it: for that 64 bits are plenty, and BLAKE3 of all that an owner writes was a third of what it cost its replicas.
func (e *epochLog) digest(room *[8]byte, data []byte) []byte {
	if e.version < 2 || len(data) == 0 {
		return data
	}
	binary.LittleEndian.PutUint64(room[:], xxhash.Sum64(data))
	return room[:]
}

// parseFrame reads a frame's header, checking that and no more.
func (e *epochLog) parseFrame(h []byte) (frame, bool) {
	le := binary.LittleEndian
	if len(h) < frameHeader || string(h[:4]) != frameMagic || h[5]|h[6]|h[7] != 0 {
		return frame{}, false
	}
	var sum [headSum]byte
	if string(reclog.Tag(e.sum, sum[:0], headSum, h[:32])) != string(h[32:40]) {
		return frame{}, false
	}
	fr := frame{h[4], le.Uint64(h[8:]), le.Uint64(h[16:]), le.Uint64(h[24:])}
	return fr, fr.kind >= frameWrite && fr.kind <= frameCommit && (fr.kind != frameWrite || fr.n <= MaxOp)
}

// read calls visit for the good frames between m and the byte 'to', and returns where they end. data is valid during
// the call. With known they are what this process has written, or read before: then what they hold isn't hashed again.
func (e *epochLog) read(m mark, to int64, known bool, visit func(fr frame, data []byte, after mark) error) (mark, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(e.f, m.at, to-m.at), epochsRead)
	h := make([]byte, frameHeader)
	var room *buffer
	var digest [8]byte
	defer func() {
		if room != nil {
			room.release()
		}
	}()
	first := m.at == epochsHeader
	for {
		if _, err := io.ReadFull(r, h); err != nil {
			return m, ended(err)
		}
		fr, ok := e.parseFrame(h)
		if !ok || !first && fr.epoch != m.epoch {
			return m, nil
		}
		var data []byte
		short := fr.kind == frameWrite && fr.n <= epochsRead
		switch {
		case short:
			var err error
			if data, err = r.Peek(int(fr.n)); err != nil {
				return m, ended(err)
			}
		case fr.kind == frameWrite:
			if room == nil || len(room.full) < int(fr.n) {
				if room != nil {
					room.release()
				}
				room = newBuffer(int(fr.n))
			}
			data = room.full[:fr.n]
			if _, err := io.ReadFull(r, data); err != nil {
				return m, ended(err)
			}
		}
		var sum [sumSize]byte
		if !known && string(reclog.Tag(e.sum, sum[:0], sumSize, m.chain[:], h[:40], e.digest(&digest, data))) != string(h[40:]) {
			return m, nil
		}
		first = false
		m = mark{m.at + frameHeader + int64(len(data)), [sumSize]byte(h[40:]), fr.epoch}
		if fr.kind == frameCommit {
			m.epoch++
		}
		if err := visit(fr, data, m); err != nil {
			return m, err
		}
		if short {
			_, _ = r.Discard(len(data)) // which was peeked at
		}
	}
}

// renew gives a log without frames the newest version.
func (e *epochLog) renew(fsys vfs.FS) error {
	if !e.empty() || e.version == epochsFormat.newest() {
		return nil
	}
	// Some systems don't replace an open file.
	err := e.f.Close()
	if err == nil {
		err = vfs.WriteNew(fsys, epochsName, newEpochsHeader())
	}
	now, oerr := openEpochs(fsys)
	if oerr != nil {
		return errors.Join(err, oerr)
	}
	now.last = e.last
	*e = *now
	if err != nil {
		return fmt.Errorf("renew %s: %w", epochsName, err)
	}
	return nil
}

// ended makes the end of the file no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// scan finds the committed epochs; those up to position base are known to be applied. What follows the last
// commit is dropped.
func (e *epochLog) scan(base Position, size int64) error {
	total, err := e.f.Size()
	if err != nil {
		return fmt.Errorf("%s: %w", epochsName, err)
	}
	e.last = base
	end, err := e.read(e.committed, total, false, func(fr frame, _ []byte, after mark) error {
		if fr.kind != frameCommit {
			if fr.off > uint64(size) || fr.n > uint64(size)-fr.off {
				return fmt.Errorf("%s: frame beyond the disk before byte %d: %w", epochsName, after.at, ErrCorrupt)
			}
			return nil
		}
		pos := Position{fr.off, fr.n}
		if pos.Compare(base) <= 0 {
			e.applied = after
		} else {
			e.last = pos
		}
		e.committed = after
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", epochsName, err)
	}
	if err := e.proveTorn(end, total, base); err != nil {
		return err
	}
	e.cut = total > e.committed.at
	e.rollback()
	return nil
}

// empty says that there is no frame that counts.
func (e *epochLog) empty() bool { return e.committed.at == epochsHeader }

// proveTorn makes sure that the log ends at m because it was not written further, not because it is damaged: the
// frames of an epoch are written only when the epoch before is durable. Those up to position base aren't missed.
func (e *epochLog) proveTorn(m mark, total int64, base Position) error {
	lowest, known := m.epoch, m.at > epochsHeader
	buf := make([]byte, max(0, min(total-m.at, epochsBuffer+frameHeader)))
	for at := m.at; at < total; at += epochsBuffer {
		n := min(int64(len(buf)), total-at)
		if err := readFull(e.f, buf[:n], at); err != nil {
			return fmt.Errorf("%s: %w", epochsName, err)
		}
		for b := buf[:n]; ; b = b[1:] {
			i := bytes.Index(b, []byte(frameMagic))
			if i < 0 {
				break
			}
			b = b[i:]
			fr, ok := e.parseFrame(b)
			if !ok {
				continue
			}
			if known && fr.epoch > lowest {
				return fmt.Errorf("%s: frame at byte %d: %w", epochsName, m.at, ErrCorrupt)
			}
			if !known {
				lowest, known = fr.epoch, true
			}
			if fr.kind == frameCommit && (Position{fr.off, fr.n}).Compare(base) <= 0 {
				lowest = max(lowest, fr.epoch+1)
			}
		}
	}
	return nil
}

// add appends a frame to the epoch in the making.
func (e *epochLog) add(fr frame, data []byte) error {
	fr.epoch, e.whole = e.epoch, nil
	start := len(e.buf)
	e.buf = e.appendHeader(e.buf, fr, e.chain, data)
	e.chain = [sumSize]byte(e.buf[start+40 : start+frameHeader])
	if len(data) < epochsDirect {
		e.buf = append(e.buf, data...)
	}
	if len(e.buf) < epochsBuffer && len(data) < epochsDirect {
		return nil
	}
	if err := e.flush(); err != nil || len(data) < epochsDirect {
		return err
	}
	if _, err := e.f.WriteAt(data, e.size); err != nil {
		return fmt.Errorf("epoch log: %w", err)
	}
	e.size += int64(len(data))
	return nil
}

func (e *epochLog) flush() error {
	if _, err := e.f.WriteAt(e.buf, e.size); err != nil {
		return fmt.Errorf("epoch log: %w", err)
	}
	e.size += int64(len(e.buf))
	e.buf = e.buf[:0]
	return nil
}

// commit ends the epoch in the file; it is durable after a sync.
func (e *epochLog) commit(pos Position) error {
	if err := e.add(frame{kind: frameCommit, off: pos.Term, n: pos.Barrier}, nil); err != nil {
		return err
	}
	all := e.buf
	if e.size != e.committed.at {
		all = nil // some of the epoch is in the file already
	}
	if err := e.flush(); err != nil {
		return err
	}
	e.whole = all
	return nil
}

// pending calls visit for the frames that are committed and not applied, as read does: out of memory, if all of them are there.
func (e *epochLog) pending(visit func(fr frame, data []byte, after mark) error) (mark, error) {
	b := e.whole
	e.whole = nil
	if len(b) == 0 || e.applied.at+int64(len(b)) != e.committed.at {
		return e.read(e.applied, e.committed.at, true, visit)
	}
	le, m := binary.LittleEndian, e.applied
	for len(b) > 0 { // what add wrote, so that nothing needs a check
		fr, n := frame{b[4], le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:])}, 0
		if fr.kind == frameWrite {
			n = int(fr.n)
		}
		m.at += int64(frameHeader + n)
		if err := visit(fr, b[frameHeader:frameHeader+n], m); err != nil {
			return m, err
		}
		b = b[frameHeader+n:]
	}
	return e.committed, nil
}

// accept makes the commit that was synced count.
func (e *epochLog) accept(pos Position) {
	e.epoch++
	e.committed, e.last = mark{e.size, e.chain, e.epoch}, pos
}

// rollback drops the epoch in the making. That the file may keep some of it does no harm: the chain of checksums leaves it
// out.
func (e *epochLog) rollback() {
	e.buf, e.whole = e.buf[:0], nil
	e.size, e.chain, e.epoch = e.committed.at, e.committed.chain, e.committed.epoch
	_ = e.f.Truncate(e.size) // only to give the space back
}

// makeDurable syncs the committed epochs, if there are any, and that what followed them is gone: the epochs of a log that is empty are numbered
// from the beginning, and what was found must not come back behind them.
func (e *epochLog) makeDurable() error {
	if e.empty() && !e.cut {
		return nil
	}
	if err := e.f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", epochsName, err)
	}
	return nil
}

// restart begins the log anew, durably, over what is there: with a commit of the position that the disk has, so that nothing of what was there
// counts. The file keeps at most limit bytes. All of it must be applied and durable in base.raw, and its position in the journal.
func (e *epochLog) restart(limit int64) error {
	if e.size > limit {
		if err := e.f.Truncate(limit); err != nil {
			return err
		}
	}
	start := mark{at: epochsHeader, epoch: e.epoch}
	e.buf, e.size, e.chain = e.buf[:0], start.at, start.chain
	if err := e.commit(e.last); err != nil {
		return err
	}
	if err := e.f.Sync(); err != nil {
		return err
	}
	e.accept(e.last)
	e.applied, e.whole = e.committed, nil
	return nil
}

// clear empties the log, durably. All of it must be applied and durable in base.raw.
func (e *epochLog) clear() error {
	m := mark{at: epochsHeader, epoch: e.epoch}
	e.committed, e.applied, e.chain, e.size, e.buf, e.whole = m, m, m.chain, m.at, nil, nil
	if err := e.f.Truncate(epochsHeader); err != nil {
		return err
	}
	return e.f.Sync()
}
