package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// specOf reads a VM's spec from its record.
func specOf(r directory.VM) (api.Spec, error) {
	var s api.Spec
	if err := json.Unmarshal(r.Spec, &s); err != nil {
		return s, fmt.Errorf("read the VM's spec: %w", err)
	}
	return s, nil
}

// guestConfig is what the VM's hypervisor is started with here.
func (e *Engine) guestConfig(id string, r directory.VM) (hypervisor.Config, error) {
	s, err := specOf(r)
	if err != nil {
		return hypervisor.Config{}, err
	}
	run := e.runDir(id)
	return hypervisor.Config{
		VM: id, Name: r.Name, CPUs: s.CPUs, MemoryKiB: s.MemoryKiB, Machine: s.Machine, CPU: s.CPU,
		Screen: s.Screen, Network: s.Network, DiskBytes: s.DiskBytes, Disk: filepath.Join(run, "disk.sock"), Dir: run,
	}, nil
}

// export is the disk's NBD server, on a socket that only QEMU on this device uses.
type export struct {
	server *nbd.Server
	cancel context.CancelFunc
	done   chan struct{}
}

// startExport serves the disk to the hypervisor; it is harmless if it does already.
func (v *vm) startExport() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.export != nil || v.disk == nil {
		return nil
	}
	l, err := nbd.Listen(filepath.Join(v.run, "disk.sock"))
	if err != nil {
		return fmt.Errorf("open the disk's socket: %w", err)
	}
	ctx, cancel := context.WithCancel(v.e.ctx)
	x := &export{server: v.nbdServer(ctx.Done()), cancel: cancel, done: make(chan struct{})}
	v.export = x
	v.e.spawn(func() {
		defer close(x.done)
		if err := x.server.Serve(ctx, l); err != nil && ctx.Err() == nil {
			v.log.Error("Serving the disk ended", "error", err)
		}
	})
	return nil
}

func (v *vm) stopExport() {
	v.mu.Lock()
	x := v.export
	v.export = nil
	v.mu.Unlock()
	if x != nil {
		x.cancel()
		<-x.done
	}
}

// setGuest makes the guest known and follows what becomes of it.
func (v *vm) setGuest(g hypervisor.Guest) {
	v.mu.Lock()
	v.guest = g
	v.problem = nil
	v.mu.Unlock()
	v.e.spawn(func() { v.followGuest(g) })
}

// adopt makes a guest that was started here the VM's, unless this device has lost the VM meanwhile: then the guest is ended. It would write
// the disk of whoever has the VM next.
func (v *vm) adopt(ctx context.Context, g hypervisor.Guest) error {
	v.mu.Lock()
	lost := !v.ownerLocked() || v.closed
	if !lost {
		v.guest, v.problem = g, nil
	}
	v.mu.Unlock()
	if lost {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
		defer cancel()
		return errors.Join(v.rather(v.errNotHere()), g.Kill(ctx), g.Close())
	}
	v.e.spawn(func() { v.followGuest(g) })
	return nil
}

// letRun lets the VM's guest go on. If this device loses the VM in that moment, it stands still again.
func (v *vm) letRun(ctx context.Context, g hypervisor.Guest) error {
	if err := v.carryOn(ctx, g); err != nil {
		return explainHypervisor(err)
	}
	if v.owner() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actionTimeout)
	defer cancel()
	return errors.Join(v.rather(v.errNotHere()), v.standStill(ctx, g))
}

// dropGuest forgets the guest if it is g, and lets go of its process.
func (v *vm) dropGuest(g hypervisor.Guest) {
	v.mu.Lock()
	ours := v.guest == g
	if ours {
		v.guest, v.guestWas = nil, ""
	}
	v.mu.Unlock()
	if ours {
		if err := g.Close(); err != nil {
			v.log.Warn("Letting go of the hypervisor failed", "error", err)
		}
	}
}

// currentGuest may be nil.
func (v *vm) currentGuest() hypervisor.Guest {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.guest
}

// followGuest turns a guest's changes into events, until it is gone or the engine ends.
func (v *vm) followGuest(g hypervisor.Guest) {
	for {
		v.noteGuest(g)
		again := v.carryOnSecured(g)
		select {
		case <-v.e.ctx.Done():
			return
		case <-g.Exited():
			v.guestExited(g)
			return
		case <-g.Changed():
		case <-again:
		}
	}
}

// noteGuest asks for the guest's state and says so when it has changed.
func (v *vm) noteGuest(g hypervisor.Guest) {
	ctx, cancel := context.WithTimeout(v.e.ctx, 5*time.Second)
	defer cancel()
	state, err := g.State(ctx)
	if err != nil {
		return
	}
	stands := &api.Error{Code: api.CodeSpace, Sentence: "The VM waits because its disk can't be written.",
		Next: "Free some space on this device, then: tagalong vm start"}
	if disk := v.currentDisk(); disk != nil {
		switch why := disk.Info().NeedsCheck; {
		case why != "":
			stands = errNeedsCheck(v.name(), v.diskDir(), why)
		case v.second.Refused() && !v.second.Satisfied(disk):
			stands = errNoSecond(v.name())
		}
	}
	v.mu.Lock()
	changed := v.guest == g && v.guestWas != state
	if changed {
		v.guestWas = state
		v.problem = nil
		if state == hypervisor.StateIOError {
			v.problem = stands
		}
	}
	v.mu.Unlock()
	if changed {
		text := ""
		switch state {
		case hypervisor.StateRunning:
			text = v.name() + " is running."
		case hypervisor.StateIOError, hypervisor.StateFailed:
			text = v.name() + " stands still."
			if stands.Code == api.CodeUnreachable {
				text = stands.Sentence
			}
		}
		v.e.hub.publish(api.Event{Kind: "vm." + string(state), VM: v.id, Text: text})
		v.e.saveRecordSoon()
	}
}
