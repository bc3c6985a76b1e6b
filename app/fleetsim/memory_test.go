package fleetsim

import (
	"errors"
	"io/fs"
	"slices"

	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/directory/baton"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// Suspended VMs: a guest's memory in a file, which belongs to one position of the disk.

// memory is what a device keeps of a suspended guest.
type memory struct {
	image *guest // what was written last; whole once there is a note
	note  []byte // nil: none
	// owed says that the person was told that the VM is suspended, and that it hasn't gone on since: it must go on as it was.
	owed bool
}

// noteFile is the durable note, as custody.Note.
type noteFile struct{ d *device }

func (n noteFile) Read() ([]byte, error) {
	if n.d.memory.note == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(n.d.memory.note), nil
}

func (n noteFile) Write(b []byte) error {
	return n.d.step(func() { n.d.memory.note = slices.Clone(b) })
}

func (n noteFile) Change(fn func(b []byte) []byte) error {
	b, err := n.Read()
	if err != nil {
		return err
	}
	// Disks call this from goroutines of their own: nothing random happens here, as a seed has to replay.
	if b = fn(b); b != nil {
		if n.d.burnt() {
			return errPower
		}
		n.d.memory.note = b
	}
	return nil
}

// step does something durable outside of the disk's files and the directory, unless the fuse burns there; it may be done even then.
func (d *device) step(do func()) error {
	if d.burnt() {
		return errPower
	}
	if d.fuse.lit && d.w.rng.IntN(4) == 0 {
		d.fuse.blown = true
		d.mem.FailAt(1, vfs.ErrGone, true)
		if d.w.rng.IntN(2) == 0 {
			do()
		}
		return errPower
	}
	do()
	return nil
}

func (e *engine) memory() custody.Memory {
	return custody.Memory{Note: noteFile{e.d}, Disk: e.disk, Log: silent}
}

func (d *device) suspended() bool { return d.memory.note != nil }

// suspend is the person's: the guest's memory is written, and its hypervisor ends.
func (w *world) suspend(d *device) {
	g, e := d.guest, d.e
	if g == nil || g.kind != running || g.flight != nil || g.flushing != nil || !e.owner() || !e.resting() || len(e.dir.Heads(vmID)) != 1 {
		return
	}
	if info := e.disk.Info(); !info.Active || info.Fenced {
		return
	}
	w.note("%s suspends its VM", d.id)
	g.kind = standing
	if err := e.disk.Flush(); err != nil {
		w.trouble(d, "flush", err)
		return
	}
	w.flushed(d)
	w.look(d)
	at := e.disk.Info().Position
	w.truth.promise(d.id, at)
	image := *g
	if err := d.step(func() { d.memory.image = &image }); err != nil {
		return
	}
	if err := e.memory().Saved(at, custody.SavedMemory{}); err != nil {
		w.trouble(d, "note the memory", err)
		return
	}
	if w.chance(12) {
		w.crash(d, w.rng.IntN(2) == 0) // before the hypervisor has ended
		return
	}
	d.guest, d.memory.owed = nil, true
	w.acts.suspended++
	e.events = append(e.events, baton.Event{Kind: baton.EvHypervisorDied})
}

// restore lets a suspended VM go on, or says why not.
func (w *world) restore(d *device) {
	e := d.e
	note, err := e.memory().Check()
	if err != nil {
		w.note("%s's memory of %s doesn't fit: %v", d.id, note.Position(), err)
		if d.memory.owed {
			w.fail("%s's VM was suspended at %s, its disk is at %s, and it can't go on: %v", d.id, note.Position(), e.disk.Position(), err)
		}
		w.forgetMemory(d)
		return
	}
	if !w.uncertain(d) {
		return
	}
	w.note("%s's VM goes on with its memory of %s", d.id, note.Position())
	image := *d.memory.image
	d.guest = &image
	d.guest.kind = standing
	w.forgetMemory(d)
	if d.burnt() {
		return
	}
	w.acts.resumed++
	w.goOn(d)
}

// forgetMemory removes the note.
func (w *world) forgetMemory(d *device) {
	d.memory.owed = false
	_ = d.step(func() { d.memory.note = nil }) // what can't be removed is only logged
}

// owes checks that an owner's saved memory still belongs to its disk.
func (w *world) owes(d *device) {
	if !d.memory.owed || d.e.disk == nil {
		return
	}
	if note, err := d.e.memory().Check(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.fail("at rest %s's VM is suspended at %s, and its disk is at %s: %v", d.id, note.Position(), d.e.disk.Position(), err)
	} else if err != nil {
		w.fail("at rest the memory of %s's suspended VM is gone: %v", d.id, err)
	}
}

// carry begins a term of the disk, with the memory that belongs to it.
func (e *engine) carry(term uint64, begin func() error) error {
	return e.memory().Carry(term, begin)
}

// renamed is told by the device's disk.
func (d *device) renamed(from, to vmdisk.Position) error {
	if d.w.saboteur == renamesUntold {
		return nil
	}
	return custody.Renamed(noteFile{d}, from, to)
}
