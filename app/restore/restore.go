package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"tagalong.org/tagalong/app/durable"
)

const (
	version  = 1
	noteName = "note.json"
	diskName = "disk"
	// goneSuffix marks what is being deleted: a crash leaves it to Sweep.
	goneSuffix = ".gone"
	maxID      = 20
)

var (
	// ErrNotFound says that there is no such restore point.
	ErrNotFound = errors.New("restore: no such restore point")
	// ErrNoDisk says that there is no disk to be kept.
	ErrNoDisk = errors.New("restore: no disk")
	// ErrNote says that a restore point's note can't be read, or was written by a newer version.
	ErrNote = errors.New("restore: unreadable note")
)

// Point is what is noted of a restore point.
type Point struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// Term and Barrier are the disk's position.
	Term    uint64    `json:"term"`
	Barrier uint64    `json:"barrier"`
	At      time.Time `json:"at"` // when it was given up
	// Why is a sentence for the person, in English. Chosen is the name of the device whose version was preferred; "" in the notes of
	// earlier versions.
	Why    string `json:"why"`
	Chosen string `json:"chosen,omitempty"`
	// Open says that the person wants the VM to see it, Attached that the VM's process has it.
	Open     bool `json:"open,omitempty"`
	Attached bool `json:"attached,omitempty"`
}

// Shelf is the directory that holds a VM's restore points. It need not exist. Its methods are not safe for concurrent use on
// the same restore point.
type Shelf string

// Disk is the directory of a restore point's disk.
func (s Shelf) Disk(id string) string { return filepath.Join(string(s), id, diskName) }

func (s Shelf) note(id string) string { return filepath.Join(string(s), id, noteName) }

func validID(id string) bool {
	if id == "" || len(id) > maxID {
		return false
	}
	return !strings.ContainsFunc(id, func(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'z') })
}

// Take makes the disk in the directory from a restore point. It may be called again after a crash or a failure, also when the
// disk was moved already, and then returns nil. The disk must be closed. Errors: ErrNoDisk (at neither place).
func (s Shelf) Take(p Point, from string) error {
	if !validID(p.ID) {
		return fmt.Errorf("restore: %q can't be an ID", p.ID)
	}
	if _, err := os.Stat(s.Disk(p.ID)); err == nil {
		return nil
	}
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", from, ErrNoDisk)
	}
	if err := durable.Mkdir(filepath.Dir(s.note(p.ID))); err != nil {
		return fmt.Errorf("restore: make %s: %w", p.ID, err)
	}
	// The note first: a disk that nobody knows the reason of is worse than a reason without a disk.
	if err := s.write(p); err != nil {
		return err
	}
	if err := durable.Rename(from, s.Disk(p.ID)); err != nil {
		return fmt.Errorf("restore: keep the disk: %w", err)
	}
	return nil
}

func (s Shelf) write(p Point) error {
	p.Version = version
	b, err := json.Marshal(p)
	if err == nil {
		err = durable.Write(s.note(p.ID), b)
	}
	if err != nil {
		return fmt.Errorf("restore: note %s: %w", p.ID, err)
	}
	return nil
}

// Get reads one note. Errors: ErrNotFound (also of one whose disk was never moved), ErrNote.
func (s Shelf) Get(id string) (Point, error) {
	var p Point
	if !validID(id) {
		return p, fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	if _, err := os.Stat(s.Disk(id)); err != nil {
		return p, fmt.Errorf("%s: %w", id, errors.Join(ErrNotFound, err))
	}
	b, err := os.ReadFile(s.note(id))
	if err != nil {
		return p, fmt.Errorf("%s: %w: %w", id, ErrNote, err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return Point{}, fmt.Errorf("%s: %w: %w", id, ErrNote, err)
	}
	if p.Version != version || p.ID != id {
		return Point{}, fmt.Errorf("%s: version %d of %q: %w", id, p.Version, p.ID, ErrNote)
	}
	return p, nil
}

// Change rewrites a note durably. Errors are those of Get and of the file.
func (s Shelf) Change(id string, change func(*Point)) error {
	p, err := s.Get(id)
	if err != nil {
		return err
	}
	before := p
	if change(&p); p == before {
		return nil
	}
	p.ID = id
	return s.write(p)
}

// List is all restore points, the newest first. One whose note can't be read is listed by its ID alone: it still takes space.
func (s Shelf) List() ([]Point, error) {
	entries, err := os.ReadDir(string(s))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restore: list: %w", err)
	}
	var list []Point
	for _, e := range entries {
		p, err := s.Get(e.Name())
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			p = Point{ID: e.Name(), Why: "Its note can't be read."}
		}
		list = append(list, p)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].At.After(list[j].At) })
	return list, nil
}

// Remove deletes a restore point, whose disk must be closed. From the moment it returns, or a crash after it began, the restore
// point isn't listed any more. Errors: ErrNotFound, those of the files (Sweep goes on).
func (s Shelf) Remove(id string) error {
	if _, err := s.Get(id); errors.Is(err, ErrNotFound) {
		return err
	}
	dir := filepath.Join(string(s), id)
	if err := durable.Rename(dir, dir+goneSuffix); err != nil {
		return fmt.Errorf("restore: remove %s: %w", id, err)
	}
	return s.Sweep()
}

// Sweep deletes what an interrupted Remove left.
func (s Shelf) Sweep() error {
	entries, err := os.ReadDir(string(s)) // and no pattern: the path may have anything in it
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), goneSuffix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(string(s), e.Name())))
		}
	}
	if err != nil {
		return fmt.Errorf("restore: sweep: %w", err)
	}
	return nil
}

// Bytes is the space that a restore point's files take; blocks that it shares with other files count too.
func (s Shelf) Bytes(id string) int64 {
	var n int64
	_ = filepath.WalkDir(s.Disk(id), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			n += allocated(info)
		}
		return nil
	})
	return n
}
