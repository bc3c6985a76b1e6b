package directory

import (
	"fmt"
	"time"
)

// Note is what the owner of a term tells of how it came to it. It is only shown.
type Note struct {
	VM    string        `json:"vm"`
	Term  uint64        `json:"term"`
	Head  Hash          `json:"head,omitzero"`   // of the transfer that began Term; zero if the writer's program was older
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
// branch; again, it replaces it. Head is filled in. Errors: ErrGap (the term is unknown), ErrNotOwner, ErrInvalid, ErrFull, ErrNoSpace,
// ErrUnsure, ErrClosed, and Sign's.
func (d *Directory) PutNote(n Note) error {
	if err := n.check(); err != nil {
		return fmt.Errorf("directory: put note: %w", err)
	}
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.putNote(n); err != nil {
		return fmt.Errorf("directory: put note: %w", err)
	}
	return nil
}

func (d *Directory) putNote(n Note) error {
	begun, err := d.begun(n.VM, n.Term)
	if err != nil {
		return err
	}
	if begun.To != d.opt.Self {
		return ErrNotOwner
	}
	n.Head = begun.hash
	value, err := encodeValue(n)
	if err != nil {
		return err
	}
	key := noteKey(n.VM, n.Term)
	return d.write1(key, d.records[key].Version+1, value)
}

// Note returns what the owner of a term has told of it.
func (d *Directory) Note(vm string, term uint64) (Note, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n, ok := d.notes[noteKey(vm, term)]
	return n, ok
}

// begun returns the transfer that began vm's term here.
func (d *Directory) begun(vm string, term uint64) (*node, error) {
	t := d.trees[vm]
	if t == nil || t.terms[term] == nil {
		return nil, fmt.Errorf("term %d: %w", term, ErrGap)
	}
	return t.terms[term], nil
}

// ownsTerm tells whether head begins vm's term and gives it to the writer of a
// record, whether that is a member still or not. Where a term was signed twice, head is another one for who believes the other
// transfer (ErrFork): then nobody has lied but who signed twice.
func (d *Directory) ownsTerm(vm string, term uint64, writer string, head Hash) error {
	n, err := d.begun(vm, term)
	switch {
	case err != nil:
		return err
	case n.hash != head:
		return fmt.Errorf("head of term %d: %w", term, ErrFork)
	case n.To != writer:
		return ErrNotOwner
	}
	return nil
}

// mayNote is ownsTerm for a note, which need not say its head.
func (d *Directory) mayNote(n Note, writer string) error {
	if n.Head != (Hash{}) {
		return d.ownsTerm(n.VM, n.Term, writer, n.Head)
	}
	begun, err := d.begun(n.VM, n.Term)
	if err == nil && begun.To != writer {
		err = fmt.Errorf("writer of term %d's note: %w", n.Term, ErrFork)
	}
	return err
}
