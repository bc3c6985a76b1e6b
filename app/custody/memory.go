package custody

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"tagalong.org/tagalong/vmdisk"
)

// A suspended VM is its memory and, beside it, a note: written last, so its presence says that the memory is whole. Memory belongs to
// one position of the disk; with any other it would corrupt the guest's file systems, so it is refused.

var (
	// ErrMemoryFormat says that the note of a saved memory can't be read by this version.
	ErrMemoryFormat = errors.New("the note of the saved memory can't be read")
	// ErrMemoryElsewhere says that a saved memory belongs to another position of the disk than the one it is at.
	ErrMemoryElsewhere = errors.New("the saved memory belongs to another state of the disk")
)

// SavedMemory is the note.
type SavedMemory struct {
	Version int       `json:"version"`
	Term    uint64    `json:"term"`
	Barrier uint64    `json:"barrier"`
	Bytes   int64     `json:"bytes"`
	Hash    string    `json:"blake3"`
	At      time.Time `json:"at"`
	// Rebind is the term under which the disk goes on with the same content: until the position has that term, this note is being
	// changed. 0 if it isn't.
	Rebind uint64 `json:"rebind,omitempty"`
	// NextTerm and NextBarrier are the position that the same content gets, or got: a crash leaves either. 0 if there is none.
	NextTerm    uint64 `json:"nextTerm,omitempty"`
	NextBarrier uint64 `json:"nextBarrier,omitempty"`
}

const savedMemoryVersion = 1

// Position is the disk's to which the memory belongs.
func (m SavedMemory) Position() vmdisk.Position {
	return vmdisk.Position{Term: m.Term, Barrier: m.Barrier}
}

// fits says that the memory belongs to the disk at p.
func (m SavedMemory) fits(p vmdisk.Position) bool {
	return p == m.Position() || p == vmdisk.Position{Term: m.NextTerm, Barrier: m.NextBarrier} && m.NextTerm != 0
}

// Note is where the note is kept. Read's error is one that is fs.ErrNotExist if there is none; what Write has written without an error is
// durable, and a crash leaves the old one or the new one. Change reads it and writes what fn makes of it, with nothing between; a nil
// result leaves it. Safe for concurrent use.
type Note interface {
	Read() ([]byte, error)
	Write(b []byte) error
	Change(fn func(b []byte) []byte) error
}

// Memory is a VM's saved memory on this device, if there is one. Its methods are called by one goroutine at a time.
type Memory struct {
	Note Note
	Disk *vmdisk.Store // nil where there is none
	Log  *slog.Logger
}

// Saved notes, durably, that the memory that was written whole, as s says, belongs to what the disk is at the position at: flushed, and with
// no guest that could write. The disk is settled first: else a crash would give it a position to which the memory doesn't belong.
// Errors: ErrNoDisk, ErrMemoryElsewhere (the disk was written meanwhile), and vmdisk's and Note's.
func (m Memory) Saved(at vmdisk.Position, s SavedMemory) error {
	if m.Disk == nil {
		return ErrNoDisk
	}
	settled, err := m.Disk.Settle()
	if err != nil {
		return fmt.Errorf("settle the disk: %w", err)
	}
	if info := m.Disk.Info(); !settled || info.Unflushed || info.Position != at {
		return ErrMemoryElsewhere
	}
	s.Version, s.Term, s.Barrier = savedMemoryVersion, at.Term, at.Barrier
	return m.write(s)
}

func (m Memory) write(s SavedMemory) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = m.Note.Write(b)
	}
	if err != nil {
		return fmt.Errorf("note the memory: %w", err)
	}
	return nil
}

// Check reads the note and makes sure that the memory belongs to the disk as it is. Errors: Note's, ErrMemoryFormat, ErrNoDisk,
// ErrMemoryElsewhere; with the last, what was noted is returned.
func (m Memory) Check() (SavedMemory, error) {
	var s SavedMemory
	b, err := m.Note.Read()
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Version != savedMemoryVersion {
		return s, ErrMemoryFormat
	}
	if m.Disk == nil {
		return s, ErrNoDisk
	}
	// What was written since the last barrier has no position yet.
	if info := m.Disk.Info(); !s.fits(info.Position) || info.Unflushed {
		return s, ErrMemoryElsewhere
	}
	return s, nil
}

// Carry begins a term of the disk: a saved memory that belongs to what the disk holds does so under the new term too. Nobody
// can write the disk meanwhile: there is no guest. Errors: Note's, and begin's.
func (m Memory) Carry(term uint64, begin func() error) error {
	s, err := m.Check()
	carried := err == nil
	if carried && s.Term != term {
		s.Rebind = term
		if err := m.write(s); err != nil {
			return err
		}
	}
	if err := begin(); err != nil {
		return err
	}
	if carried {
		m.Rebind(term)
	}
	return nil
}

// Rebind ends what Carry began, perhaps before a restart. The disk is active under term.
func (m Memory) Rebind(term uint64) {
	var s SavedMemory
	b, err := m.Note.Read()
	if err != nil || json.Unmarshal(b, &s) != nil || s.Rebind != term || m.Disk == nil {
		return
	}
	_, err = m.Disk.Name() // which tells Renamed
	if err == nil {
		_, err = m.Disk.Settle()
	}
	if err == nil {
		err = change(m.Note, func(s *SavedMemory) bool {
			s.Rebind = 0
			return true
		})
	}
	if err != nil {
		m.Log.Error("Binding the saved memory to the new term failed", "error", err)
	}
}

// Renamed binds a saved memory that belongs to what the disk is at from to the position to as well: its content gets that name. It is
// vmdisk.Options.Renamed, and safe for concurrent use with everything else.
func Renamed(n Note, from, to vmdisk.Position) error {
	err := change(n, func(s *SavedMemory) bool {
		if !s.fits(from) {
			return false
		}
		s.Term, s.Barrier, s.NextTerm, s.NextBarrier = from.Term, from.Barrier, to.Term, to.Barrier
		return true
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// change changes a note of this version.
func change(n Note, fn func(s *SavedMemory) bool) error {
	err := n.Change(func(b []byte) []byte {
		var s SavedMemory
		if json.Unmarshal(b, &s) != nil || s.Version != savedMemoryVersion || !fn(&s) {
			return nil
		}
		out, _ := json.Marshal(s) // a struct of numbers and strings always marshals
		return out
	})
	if err != nil {
		return fmt.Errorf("note the memory: %w", err)
	}
	return nil
}
