package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

// A VM may be handed on to a device whose copy isn't whole. What that copy lacks is then told by the giver, in its own step, and is
// durable here before this device says that it is ready: the transfer that follows may be all that arrives of it.

var (
	// ErrUntold says that the disk was given at a position that this copy isn't at, and that it isn't known what it lacks. It must
	// not be written: blocks that are old would be taken for new.
	ErrUntold = errors.New("it isn't known what this copy of the disk lacks")
	// ErrLackingFormat says that what was kept of a hand-off can't be read by this version, or is damaged.
	ErrLackingFormat = errors.New("the note of what this copy lacks can't be read")
)

// Lacking is what the giver of a hand-off tells of its disk as it is given: at Position, with what each replica lacks of that.
type Lacking struct {
	From, Attempt string
	Position      vmdisk.Position
	Sets          []byte // vmdisk's export
}

// Slot keeps one note, durably. Read's error is one that is fs.ErrNotExist if there is none; a crash leaves the old one or the new one.
type Slot interface {
	Read() ([]byte, error)
	Write(b []byte) error
}

// lackingHead is the first line of the note; the sets follow.
type lackingHead struct {
	Version int             `json:"version"`
	From    string          `json:"from"`
	Attempt string          `json:"attempt"`
	At      vmdisk.Position `json:"position"`
	Hash    []byte          `json:"blake3"` // of the sets
}

const lackingVersion = 1

// Keep makes durable what the giver tells, if this device's copy can be gone on with so. It takes the place of what an earlier giver told.
// The copy itself is left as it is: it stays a replica until the VM is this device's. Errors: ErrNoDisk, the Slot's, and vmdisk's StaleIn.
func (c Custody) Keep(l Lacking) error {
	if c.Disk == nil || !c.Disk.Info().Complete {
		return ErrNoDisk
	}
	_, at, err := c.Disk.StaleIn(l.Sets, c.Self)
	if err != nil {
		return err
	}
	if at != l.Position {
		return fmt.Errorf("sets of %s instead of %s: %w", at, l.Position, ErrUntold)
	}
	sum := blake3.Sum256(l.Sets)
	head, err := json.Marshal(lackingHead{lackingVersion, l.From, l.Attempt, l.Position, sum[:]})
	if err == nil {
		err = c.Lacking.Write(slices.Concat(head, []byte{'\n'}, l.Sets))
	}
	if err != nil {
		return fmt.Errorf("note what this copy lacks: %w", err)
	}
	return nil
}

// kept is what was kept last. Errors: ErrLackingFormat, the Slot's.
func (c Custody) kept() (Lacking, error) {
	if c.Lacking == nil {
		return Lacking{}, fs.ErrNotExist
	}
	b, err := c.Lacking.Read()
	if err != nil {
		return Lacking{}, err
	}
	line, sets, _ := bytes.Cut(b, []byte{'\n'})
	var h lackingHead
	if err := json.Unmarshal(line, &h); err != nil || h.Version != lackingVersion {
		return Lacking{}, ErrLackingFormat
	}
	if sum := blake3.Sum256(sets); !bytes.Equal(sum[:], h.Hash) {
		return Lacking{}, ErrLackingFormat
	}
	return Lacking{h.From, h.Attempt, h.At, sets}, nil
}

// toldOf is what was kept of the hand-off t, if that is what was kept last; err says why nothing can be read.
func (c Custody) toldOf(t directory.SignedTransfer) (l Lacking, told bool, err error) {
	l, err = c.kept()
	return l, err == nil && l.Attempt == t.Attempt && l.From == t.From && l.Position == vmdisk.Position(t.Position), err
}

// readyFor says that the disk can be gone on with as it was given by t: it is there, or it is known what it lacks of that.
func (c Custody) readyFor(t directory.SignedTransfer) bool {
	if c.Disk == nil || !c.Disk.Info().Complete {
		return false
	}
	_, told, _ := c.toldOf(t)
	return told || c.Disk.Info().Position == vmdisk.Position(t.Position)
}

// lack makes the disk, which isn't active, the one that this device was given in the history of term: at the position of that transfer. What
// it lacks of it becomes stale. It returns what the giver told of the others: what was kept, or giver. Errors: ErrUntold, and vmdisk's.
func (c Custody) lack(term uint64, giver *Word) (*Word, error) {
	t, ok := c.given(term, c.Self, false)
	info := c.Disk.Info()
	if !ok || info.Owned && info.Term >= t.Term {
		return giver, nil
	}
	at := vmdisk.Position(t.Position)
	l, told, err := c.toldOf(t)
	if told {
		giver = &Word{From: l.From, Position: l.Position, Sets: l.Sets}
	}
	switch {
	case info.Position == at:
		return giver, nil
	case !told && err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the disk is at %s, and was given at %s: %w: %w", info.Position, at, ErrUntold, err)
	case !told:
		return nil, fmt.Errorf("the disk is at %s, and was given at %s: %w", info.Position, at, ErrUntold)
	}
	set, _, err := c.Disk.StaleIn(l.Sets, c.Self)
	if err == nil {
		err = c.Disk.SetStale(set, at)
	}
	return giver, err
}

// given is the transfer by which the device was given the VM, with its giver's consent, in the history of term, if nothing but choices
// followed; and, if kept says so, what the device itself kept. (Who keeps what it has was active with it, and is told nothing.)
func (c Custody) given(term uint64, device string, kept bool) (t directory.SignedTransfer, ok bool) {
	head, ok := c.Dir.Transfer(c.VM, term)
	if !ok {
		return t, false
	}
	for _, t := range slices.Backward(c.Dir.Ancestry(head.Hash())) {
		switch {
		case t.Kind == directory.KindResolved, kept && t.Kind == directory.KindKept && t.From == t.To:
			continue // the same side goes on, on the same disk
		case t.Kind == directory.KindSwitch, t.Kind == directory.KindReturned:
			return t, t.To == device
		}
		break
	}
	return t, false
}

// HandedAt is the position at which the disk, which lacks blocks, was given to this device: what is stale in it is as it was then.
func (c Custody) HandedAt(term uint64) (vmdisk.Position, bool) {
	return c.HandedTo(term, c.Self)
}

// HandedTo is the same of another device that owns the VM under term.
func (c Custody) HandedTo(term uint64, device string) (vmdisk.Position, bool) {
	t, ok := c.given(term, device, true)
	return vmdisk.Position(t.Position), ok
}

// goBack lets a disk that lacks blocks be again what it was before, if this device took the VM over from itself, by the person's word, to go
// on with that.
func (c Custody) goBack(term uint64) error {
	t, ok := c.Dir.Transfer(c.VM, term)
	info := c.Disk.Info()
	if !ok || t.Kind != directory.KindTakeover || t.To != c.Self || !info.Hydrating || info.Before != vmdisk.Position(t.Position) || info.Term >= term {
		return nil
	}
	return c.DropStale()
}
