package app

import (
	"context"
	"errors"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
)

// How long a hypervisor that an earlier engine left may take to answer: at once, and when it was waiting for its disk.
const (
	answersSoon = 3 * time.Second
	answersLate = 35 * time.Second
)

// findGuest takes hold of the hypervisor that an earlier engine left running, or returns nil. Nothing else uses the VM yet.
func (v *vm) findGuest(r directory.VM) hypervisor.Guest {
	c, err := v.e.guestConfig(v.id, r)
	if err != nil {
		v.log.Error("Reading a VM's spec failed", "error", err)
		return nil
	}
	guest, err := v.tryFind(c, answersSoon)
	if err != nil && !errors.Is(err, hypervisor.ErrNotRunning) && v.e.ctx.Err() == nil {
		// It hears nobody while it waits for its disk: one that had only begun to start, or was about to stop its guest, when the
		// earlier engine died. What it is doing with the disk is its own, and the disk knows whether it may.
		v.log.Warn("A hypervisor doesn't answer; it may be waiting for its disk", "error", err)
		if exportErr := v.startExport(); exportErr != nil {
			v.log.Error("Serving the disk failed", "error", exportErr)
		}
		guest, err = v.tryFind(c, answersLate)
	}
	if err != nil {
		if !errors.Is(err, hypervisor.ErrNotRunning) {
			v.log.Error("Finding a VM's hypervisor failed", "error", err)
		}
		v.stopExport()
		return nil
	}
	v.log.Info("Found a running hypervisor")
	return guest
}

func (v *vm) tryFind(c hypervisor.Config, patience time.Duration) (hypervisor.Guest, error) {
	ctx, cancel := context.WithTimeout(v.e.ctx, patience)
	defer cancel()
	return v.e.opt.Hypervisor.Find(ctx, c)
}
