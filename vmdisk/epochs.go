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
	epochsBuffer = 256 << 10

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
// no mixture of old and new frames can be taken for a log. Not safe for concurrent use.
type epochLog struct {
	f    vfs.File
	sum  *blake3.Hasher
	buf  []byte // frames not written yet
	size int64  // of the file without buf

	chain [sumSize]byte
	epoch uint64 // of the next frame

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
	switch _, err := epochsFormat.version(h); {
	case errors.Is(err, ErrForeign):
		return nil, fmt.Errorf("%s: %w: %w", epochsName, ErrCorrupt, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", epochsName, err)
	}
	if sum := blake3.Sum256(h[:48]); string(sum[:]) != string(h[48:]) {
		return nil, fmt.Errorf("%s: header: %w", epochsName, ErrCorrupt)
	}
	start := mark{at: epochsHeader}
	return &epochLog{f: f, sum: reclog.NewHasher([32]byte(h[16:48])), size: epochsHeader, committed: start, applied: start}, nil
}

func (e *epochLog) appendFrame(b []byte, fr frame, chain [sumSize]byte, data []byte) []byte {
	le, start := binary.LittleEndian, len(b)
	b = append(b, frameMagic...)
	b = append(b, fr.kind, 0, 0, 0)
	b = le.AppendUint64(b, fr.epoch)
	b = le.AppendUint64(b, fr.off)
	b = le.AppendUint64(b, fr.n)
	b = reclog.Tag(e.sum, b, headSum, b[start:])
	b = reclog.Tag(e.sum, b, sumSize, chain[:], b[start:], data)
	return append(b, data...)
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
// the call.
func (e *epochLog) read(m mark, to int64, visit func(fr frame, data []byte, after mark) error) (mark, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(e.f, m.at, to-m.at), int(max(0, min(to-m.at, epochsBuffer))))
	h, data := make([]byte, frameHeader), []byte(nil)
	first := m.at == epochsHeader
	for {
		if _, err := io.ReadFull(r, h); err != nil {
			return m, ended(err)
		}
		fr, ok := e.parseFrame(h)
		if !ok || !first && fr.epoch != m.epoch {
			return m, nil
		}
		data = data[:0]
		if fr.kind == frameWrite {
			if cap(data) < int(fr.n) {
				data = make([]byte, 0, max(int(fr.n), 64<<10))
			}
			data = data[:fr.n]
			if _, err := io.ReadFull(r, data); err != nil {
				return m, ended(err)
			}
		}
		var sum [sumSize]byte
		if string(reclog.Tag(e.sum, sum[:0], sumSize, m.chain[:], h[:40], data)) != string(h[40:]) {
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
	}
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
	end, err := e.read(e.committed, total, func(fr frame, _ []byte, after mark) error {
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
	if err := e.proveTorn(end, total); err != nil {
		return err
	}
	e.rollback()
	return nil
}

// proveTorn makes sure that the log ends at m because it was not written further, not because it is damaged: the
// frames of an epoch are written only when the epoch before is durable.
func (e *epochLog) proveTorn(m mark, total int64) error {
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
		}
	}
	return nil
}

// add appends a frame to the epoch in the making.
func (e *epochLog) add(fr frame, data []byte) error {
	fr.epoch = e.epoch
	start := len(e.buf)
	e.buf = e.appendFrame(e.buf, fr, e.chain, data)
	e.chain = [sumSize]byte(e.buf[start+40 : start+frameHeader])
	if len(e.buf) < epochsBuffer {
		return nil
	}
	return e.flush()
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
	return e.flush()
}

// accept makes the commit that was synced count.
func (e *epochLog) accept(pos Position) {
	e.epoch++
	e.committed, e.last = mark{e.size, e.chain, e.epoch}, pos
}

// rollback drops the epoch in the making. That the file may keep some of it does no harm: the chain of checksums leaves it
// out.
func (e *epochLog) rollback() {
	e.buf = e.buf[:0]
	e.size, e.chain, e.epoch = e.committed.at, e.committed.chain, e.committed.epoch
	_ = e.f.Truncate(e.size) // only to give the space back
}

// makeDurable syncs the committed epochs, if there are any.
func (e *epochLog) makeDurable() error {
	if e.committed.at == epochsHeader {
		return nil
	}
	if err := e.f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", epochsName, err)
	}
	return nil
}

// clear empties the log, durably. All of it must be applied and durable in base.raw.
func (e *epochLog) clear() error {
	m := mark{at: epochsHeader, epoch: e.epoch}
	e.committed, e.applied, e.chain, e.size = m, m, m.chain, m.at
	if err := e.f.Truncate(epochsHeader); err != nil {
		return err
	}
	return e.f.Sync()
}
