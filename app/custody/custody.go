package custody

import (
	"errors"
	"fmt"
	"log/slog"

	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
)

var (
	// ErrNotWritten says that it is certain that nothing became durable.
	ErrNotWritten = errors.New("nothing was written")
	// ErrNoDisk says that this device has no copy of the disk.
	ErrNoDisk = errors.New("no copy of the disk on this device")
)

// Custody is what a device holds of one VM. Its methods are called by one goroutine at a time; the directory and the disk may
// be in use by others meanwhile.
type Custody struct {
	VM   string
	Self string // this device's ID
	Dir  *directory.Directory
	Disk *vmdisk.Store // nil where there is none
	Log  *slog.Logger
	// Lacking keeps what the giver of a hand-off onto a copy that isn't whole told of it; nil: there never was any.
	Lacking Slot
}

// Giving is a transfer to be signed.
type Giving struct {
	Term     uint64 // the new one
	To       string
	Attempt  string
	Position directory.Position
	Kind     directory.Kind
	State    []byte // the machine's, as of then
}

// Given signs a transfer, once, and writes it with the machine's state; then the disk's journal says the same. Only after that
// the transfer may leave. ErrNotWritten: it was as if nothing had been tried. Otherwise it may be durable, and only calling it
// again can tell.
func (c Custody) Given(g Giving) error {
	_, err := c.Dir.Give(c.VM, g.Term, g.To, g.Attempt, g.Position, g.Kind, directory.BatonEntry(c.VM, g.State))
	if err != nil {
		return unwritten(fmt.Errorf("write the transfer: %w", err))
	}
	if err := c.giveDisk(g.Term-1, vmdisk.Position(g.Position)); err != nil {
		return fmt.Errorf("give the disk's term away: %w", err)
	}
	return nil
}

// unwritten marks an error of the directory after which nothing can have become durable.
func unwritten(err error) error {
	if errors.Is(err, directory.ErrUnsure) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotWritten, err)
}

// giveDisk makes it durable that the disk isn't written under term any more. One that lacks blocks can't be given as it is: if it is still at
// the position at, at which it was given to this device, the guest never wrote here, and it becomes again what it was before.
func (c Custody) giveDisk(term uint64, at vmdisk.Position) error {
	if c.Disk == nil {
		return nil
	}
	if c.Disk.Info().Active {
		if err := c.Disk.Fence(); err != nil {
			return err
		}
	}
	if info := c.Disk.Info(); info.Hydrating {
		if info.Position != at || info.Unflushed {
			return fmt.Errorf("the disk is at %s and lacks blocks, %s is given: %w", info.Position, at, vmdisk.ErrHydrating)
		}
		if _, err := c.Disk.Rollback(); err != nil {
			return err
		}
	}
	return c.Disk.Give(term)
}

// Owned writes the machine's state of an owner under term, whose transfer is in the directory. ErrNotWritten: it isn't there.
func (c Custody) Owned(term uint64, state []byte) error {
	t, ok := c.Dir.Transfer(c.VM, term)
	if !ok {
		return fmt.Errorf("%w: term %d: %w", ErrNotWritten, term, directory.ErrNotFound)
	}
	if err := c.Dir.AppendTransfer(t, directory.BatonEntry(c.VM, state)); err != nil {
		return fmt.Errorf("write the received transfer: %w", err)
	}
	return nil
}

// Word is what the giver knew of the other devices' replicas, from when it gave the VM away.
type Word struct {
	From     string
	Position vmdisk.Position
	Sets     []byte
}

// Activate lets the disk be written under term (one that is fenced: once Resume was called), after what the giver told (may be nil) has become this disk's own knowledge:
// without it everything is copied to the others again, which is slow but safe. What this copy lacks of the disk as it was given is known
// to it before: it is stale. Errors: ErrNoDisk, ErrUntold, and vmdisk's.
func (c Custody) Activate(term uint64, giver *Word) error {
	if c.Disk == nil {
		return ErrNoDisk
	}
	if err := c.goBack(term); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	// A side that was fenced and is to go on is still active under its old term.
	if c.Disk.Info().Active {
		c.learn(giver)
		return c.Disk.Renew(term)
	}
	return c.begin(term, giver)
}

// begin makes a disk active that isn't. Each step is durable before the next, and is done again after a crash.
func (c Custody) begin(term uint64, giver *Word) error {
	if err := c.goBack(term); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	giver, err := c.lack(term, giver)
	if err != nil {
		return fmt.Errorf("learn what this copy lacks: %w", err)
	}
	c.learn(giver)
	if giver != nil {
		if err := c.Disk.SetClean(giver.From, giver.Position); err != nil {
			c.Log.Warn("The giver's replica will be checked whole", "device", giver.From, "error", err)
		}
	}
	if err := c.Disk.Activate(term); err != nil {
		return err
	}
	c.teachEnds()
	return nil
}

// learn takes what the giver knew of the other replicas.
func (c Custody) learn(giver *Word) {
	if giver == nil || len(giver.Sets) == 0 {
		return
	}
	if err := c.Disk.ImportDirty(giver.Sets, c.Self); err != nil {
		c.Log.Warn("The other replicas will be copied whole", "error", err)
	}
}

// Resume lets the disk be written on under a term that this device owns: after an attempt to give it away, or a restart.
func (c Custody) Resume(term uint64) error {
	if c.Disk == nil {
		return ErrNoDisk
	}
	if !c.Disk.Info().Active {
		return c.begin(term, nil)
	}
	// An attempt to give it away may end because the person chose: then the disk is told the new term in a moment, or was.
	if c.Disk.Info().Term < term {
		if err := c.Disk.Renew(term); err != nil {
			return err
		}
	}
	return c.Disk.Unfence()
}

// Fence lets no write pass any more, and makes the disk's position final: what is signed about it must hold after a restart too.
// Of a disk that isn't active, which a restart leaves, the terms before term are given away
// once more: the machine knows that they were. If the transfer of term is this device's own, its disk was drained at the
// transfer's position, and nothing was written after that.
func (c Custody) Fence(term uint64) error {
	if c.Disk == nil || term == 0 {
		return nil
	}
	if c.Disk.Info().Active {
		return c.sealDisk()
	}
	t, ok := c.Dir.Transfer(c.VM, term)
	switch info := c.Disk.Info(); {
	case ok && t.Kind == directory.KindReturned && t.From == c.Self:
		return c.giveDisk(term-1, vmdisk.Position(t.Position))
	case info.Hydrating:
		return nil // what it holds is still to be judged: nothing writes it meanwhile
	case ok && t.Kind == directory.KindSwitch && t.From == c.Self:
		return c.Disk.GiveAt(term-1, vmdisk.Position(t.Position))
	}
	return c.Disk.Give(term - 1)
}

// sealDisk fences an active disk and makes its position final.
func (c Custody) sealDisk() error {
	if err := c.Disk.Fence(); err != nil {
		return err
	}
	return c.Disk.Seal()
}
