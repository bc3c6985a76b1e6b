package records

import (
	"fmt"
	"io"
)

// MaxUnsynced bounds how many records may be written between two syncs: Append
// syncs by itself when it is reached. Recovery relies on it to know which old
// records a crash may have caught while they were being replaced.
const MaxUnsynced = 32

// minSlots leaves a ring room for what a crash may take and as much again.
const minSlots = 4 * MaxUnsynced

// maxSlots bounds the memory of a ring (32 bytes a slot).
const maxSlots = 1 << 20

// File is one file of the ring: preallocated, at least as long as its share of
// slots.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all that was written is durable.
	Sync() error
}

// Ring keeps the last records over several files. Record n lies in slot n mod
// slots; slots are numbered through the files in order. It is not safe for
// concurrent use.
type Ring struct {
	files   []File
	perFile int
	slots   int
	run     uint64
	last    uint64   // the newest record written, 0 for none
	durable uint64   // the newest record known durable
	shadow  []Record // by slot; Seq 0 is an empty slot
	dirty   []bool   // by file: written since its last sync
	buf     []byte   // one record, for encoding
}

// Open makes a ring of files with perFile slots each; run names this start of
// the guest. Call Recover before anything else. Errors: ErrGeometry.
func Open(files []File, perFile int, run uint64) (*Ring, error) {
	if perFile < 1 || len(files) < 1 || len(files) > maxSlots/perFile || len(files)*perFile < minSlots {
		return nil, fmt.Errorf("open ring of %d files with %d slots: %w", len(files), perFile, ErrGeometry)
	}
	slots := len(files) * perFile
	return &Ring{
		files:   files,
		perFile: perFile,
		slots:   slots,
		run:     run,
		shadow:  make([]Record, slots),
		dirty:   make([]bool, len(files)),
		buf:     make([]byte, Size),
	}, nil
}

// Last is the number of the newest record, 0 for none.
func (r *Ring) Last() uint64 { return r.last }

// Durable is the number of the newest record known durable.
func (r *Ring) Durable() uint64 { return r.durable }

// Slots is how many records the ring holds.
func (r *Ring) Slots() int { return r.slots }

// Append writes the next record, stamped with wall (microseconds since 1970),
// and returns its number. It is durable after the next Sync. After an error the
// number is not used up: the next Append writes it again.
func (r *Ring) Append(wall int64) (uint64, error) {
	if r.last-r.durable >= MaxUnsynced {
		if _, err := r.Sync(); err != nil {
			return 0, err
		}
	}
	rec := Record{Seq: r.last + 1, Run: r.run, Durable: r.durable, Wall: wall}
	rec.Encode(r.buf)
	slot := r.slotOf(rec.Seq)
	if err := r.write(slot, r.buf); err != nil {
		return 0, fmt.Errorf("append record %d: %w", rec.Seq, err)
	}
	r.shadow[slot] = rec
	r.last = rec.Seq
	return rec.Seq, nil
}

// Sync makes all records so far durable and returns the newest one's number.
func (r *Ring) Sync() (uint64, error) {
	last := r.last
	for i, f := range r.files {
		if !r.dirty[i] {
			continue
		}
		if err := f.Sync(); err != nil {
			return r.durable, fmt.Errorf("sync ring file %d: %w", i, err)
		}
		r.dirty[i] = false
	}
	r.durable = last
	return last, nil
}

func (r *Ring) slotOf(seq uint64) int { return int(seq % uint64(r.slots)) }

func (r *Ring) write(slot int, b []byte) error {
	i := slot / r.perFile
	r.dirty[i] = true
	_, err := r.files[i].WriteAt(b, int64(slot%r.perFile)*Size)
	return err
}

// scanChunk is how many records one read takes.
const scanChunk = 64

// scan reads every slot in order and hands it to visit; a slot that cannot be
// read is handed over with the error.
func (r *Ring) scan(visit func(slot int, b []byte, err error)) {
	buf := make([]byte, scanChunk*Size)
	for i, f := range r.files {
		for s := 0; s < r.perFile; s += scanChunk {
			n := min(scanChunk, r.perFile-s)
			got, err := f.ReadAt(buf[:n*Size], int64(s)*Size)
			for j := range n {
				b := buf[j*Size : (j+1)*Size]
				slot := i*r.perFile + s + j
				if (j+1)*Size > got {
					if err == nil {
						err = io.ErrUnexpectedEOF
					}
					visit(slot, b, err)
					continue
				}
				visit(slot, b, nil)
			}
		}
	}
}
