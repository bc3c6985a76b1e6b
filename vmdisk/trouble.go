package vmdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// outOfSpace says that an error is only a matter of space, which is no reason to doubt what is stored.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// troubled takes the error of a call of one of the disk's files, and gives it back. If it isn't about space, the disk needs
// checking from now on: that is in the journal before this returns, if the journal can be written, and is told to
// Options.Troubled. Only the first trouble since the last clean check is kept. The caller doesn't hold mu.
func (d *Store) troubled(step string, err error) error {
	if err == nil || outOfSpace(err) || errors.Is(err, fs.ErrClosed) || errors.Is(err, ErrClosed) {
		return err
	}
	d.mu.Lock()
	d.troubles++
	first := d.doubt == "" && !d.closed && !d.looking
	if first {
		d.doubt = checkReason(step, err)
		d.unmarked = true
	}
	reason := d.doubt
	d.mu.Unlock()
	if !first {
		return err
	}
	d.log.Error("Disk had an I/O error, it needs checking", "disk", d.id, "step", step, "err", err)
	if merr := d.mark(); merr != nil {
		d.log.Error("That a disk needs checking couldn't be stored, it is tried again", "disk", d.id, "err", merr)
	}
	select {
	case d.trouble <- reason:
	default:
	}
	return err
}

// checkReason is what is kept of a trouble.
func checkReason(step string, err error) string {
	s := fmt.Sprintf("%s: %v", step, err)
	return s[:min(len(s), maxReason)]
}

// mark stores that the disk needs checking, if that isn't stored yet.
func (d *Store) mark() error {
	d.mu.Lock()
	reason, needed := d.doubt, d.unmarked
	d.mu.Unlock()
	if !needed {
		return nil
	}
	if err := d.record(checkRecord(reason)); err != nil {
		return fmt.Errorf("mark for checking: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.doubt == reason {
		d.unmarked = false
	}
	return nil
}

// unmark says, durably, that the disk doesn't need checking any more, unless there was trouble after the first
// troubles ones.
func (d *Store) unmark(troubles uint64) error {
	d.mu.Lock()
	if d.troubles != troubles {
		defer d.mu.Unlock()
		return fmt.Errorf("clear the mark: trouble came meanwhile: %s", d.doubt)
	}
	marked := d.doubt != ""
	d.doubt, d.unmarked = "", false
	d.mu.Unlock()
	if !marked {
		return nil
	}
	if err := d.record(checkRecord("")); err != nil {
		return fmt.Errorf("clear the mark: %w", err)
	}
	return nil
}
