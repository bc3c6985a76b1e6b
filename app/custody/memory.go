package custody

import (
	"encoding/json"
	"errors"
	"fmt"
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
}

const savedMemoryVersion = 1

// Position is the disk's to which the memory belongs.
func (m SavedMemory) Position() vmdisk.Position {
	return vmdisk.Position{Term: m.Term, Barrier: m.Barrier}
}

// Note is where the note is kept. Read's error is one that is fs.ErrNotExist if there is none; what Write has written without an error is
// durable, and a crash leaves the old one or the new one.
type Note interface {
	Read() ([]byte, error)
	Write(b []byte) error
}

// Memory is a VM's saved memory on this device, if there is one. Its methods are called by one goroutine at a time.
type Memory struct {
	Note Note
	Disk *vmdisk.Store // nil where there is none
	Log  *slog.Logger
}

// Saved notes, durably, that the memory that was written whole belongs to what the disk is: flushed, and with no guest that could write.
// at is what it was at before the memory was written, m says what was.
func (m Memory) Saved(at vmdisk.Position, s SavedMemory) error {
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
	if m.Disk.Info().Position != s.Position() {
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
	p, err := m.Disk.Name()
	if err == nil {
		s.Term, s.Barrier, s.Rebind = p.Term, p.Barrier, 0
		err = m.write(s)
	}
	if err != nil {
		m.Log.Error("Binding the saved memory to the new term failed", "error", err)
	}
}
