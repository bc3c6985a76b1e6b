package directory

import (
	"fmt"
	"time"
)

// Note is what the owner of a term tells of how it came to it. It is only shown.
type Note struct {
	VM    string        `json:"vm"`
	Term  uint64        `json:"term"`
	How   string        `json:"how,omitempty"`   // at most 64 bytes
	Pause time.Duration `json:"pause,omitempty"` // how long the guest stood
	// Memory and Disk are the bytes that moved.
	Memory int64     `json:"memory,omitempty"`
	Disk   int64     `json:"disk,omitempty"`
	Began  time.Time `json:"began,omitzero"`
	Ended  time.Time `json:"ended,omitzero"`
}

const maxNoteHow = 64

// noteKey sorts after the transfer on which the note depends.
func noteKey(vm string, term uint64) string { return fmt.Sprintf("vmnote/%s/%010d", vm, term) }

func (n *Note) check() error {
	if !validVMID(n.VM) || n.Term == 0 || n.Term > maxTerm || len(n.How) > maxNoteHow || n.Pause < 0 || n.Memory < 0 || n.Disk < 0 {
		return fmt.Errorf("note: %w", ErrInvalid)
	}
	return nil
}

func readNote(r Record) (Note, error) {
	if len(r.Value) > maxNote {
		return Note{}, fmt.Errorf("note of %d bytes: %w", len(r.Value), ErrInvalid)
	}
	n, err := decodeValue[Note](r.Value)
	if err != nil {
		return n, fmt.Errorf("note: %w", err)
	}
	if err := n.check(); err != nil {
		return n, err
	}
	if r.Key != noteKey(n.VM, n.Term) {
		return n, fmt.Errorf("note: key: %w", ErrInvalid)
	}
	return n, nil
}

// PutNote writes what this device tells of a term of its own, on whatever
// branch; again, it replaces it. Errors: ErrGap (the term is unknown), ErrNotOwner, ErrInvalid, ErrFull, ErrNoSpace,
// ErrUnsure, ErrClosed, and Sign's.
func (d *Directory) PutNote(n Note) error {
	if err := n.check(); err != nil {
		return fmt.Errorf("directory: put note: %w", err)
	}
	value, err := encodeValue(n)
	if err != nil {
		return fmt.Errorf("directory: put note: %w", err)
	}
	d.write.Lock()
	defer d.write.Unlock()
	err = d.tookTerm(n.VM, n.Term, d.opt.Self)
	if err == nil {
		key := noteKey(n.VM, n.Term)
		err = d.write1(key, d.records[key].Version+1, value)
	}
	if err != nil {
		return fmt.Errorf("directory: put note: %w", err)
	}
	return nil
}

// Note returns what the owner of a term has told of it.
func (d *Directory) Note(vm string, term uint64) (Note, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, ok := d.notes[noteKey(vm, term)]
	return n, ok
}

// tookTerm tells whether the history gives vm's term to a device.
func (d *Directory) tookTerm(vm string, term uint64, device string) error {
	t := d.trees[vm]
	if t == nil || t.terms[term] == nil {
		return fmt.Errorf("term %d: %w", term, ErrGap)
	}
	if t.terms[term].To != device {
		return ErrNotOwner
	}
	return nil
}

// ownsTerm tells whether head begins vm's term and gives it to the writer of a
// record, whether that is a member still or not.
func (d *Directory) ownsTerm(vm string, term uint64, writer string, head Hash) error {
	if err := d.tookTerm(vm, term, writer); err != nil {
		return err
	}
	if d.trees[vm].terms[term].hash != head {
		return fmt.Errorf("head of term %d: %w", term, ErrFork)
	}
	return nil
}
