package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
	"tagalong.org/tagalong/app/volumes"
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
	table, err := s.Table()
	if err != nil {
		return hypervisor.Config{}, fmt.Errorf("read the VM's disks: %w", err)
	}
	run := e.runDir(id)
	return hypervisor.Config{
		VM: id, Name: r.Name, CPUs: s.CPUs, MemoryKiB: s.MemoryKiB, Machine: s.Machine, CPU: s.CPU,
		Hardware: s.Hardware, Firmware: s.Firmware, Fork: e.forkOf(id), Bridge: e.bridgeFor(s),
		Screen: s.Screen, Network: s.Network, Disks: disksOf(run, table), Dir: run,
	}, nil
}

// disksOf are the volumes of a table that a guest sees, with their sockets in the run directory.
func disksOf(run string, table volumes.Table) []hypervisor.Disk {
	var list []hypervisor.Disk
	for i, w := range table.Volumes {
		if !seen(w) {
			continue
		}
		list = append(list, hypervisor.Disk{ID: w.ID, Kind: hypervisor.DiskKind(w.Kind), Bytes: w.Bytes(), Socket: volumeSocket(run, i, w)})
	}
	return list
}

// volumeSocket is where volume i of a table is served. That of the first has the name that it always had: a guest may be using it.
func volumeSocket(run string, i int, w volumes.Volume) string {
	if i == 0 {
		return filepath.Join(run, "disk.sock")
	}
	return filepath.Join(run, "v-"+w.ID+".sock")
}

// export are the NBD servers of the VM's volumes, each on a socket that only QEMU on this device uses.
type export struct {
	servers []*nbd.Server
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// startExport serves the VM's disks to the hypervisor; it is harmless if it does already. Whoever changes the table of volumes ends it before.
func (v *vm) startExport() error {
	table, err := v.table()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.export != nil || v.disk == nil {
		return nil
	}
	if err != nil {
		return err
	}
	var shown []volumes.Volume
	var doors []net.Listener
	for i, w := range table.Volumes {
		if !seen(w) {
			continue
		}
		l, err := nbd.Listen(volumeSocket(v.run, i, w))
		if err != nil {
			for _, l := range doors {
				_ = l.Close() // nobody has come in
			}
			return fmt.Errorf("open the socket of %s: %w", w.ID, err)
		}
		shown, doors = append(shown, w), append(doors, l)
	}
	ctx, cancel := context.WithCancel(v.e.ctx)
	x := &export{cancel: cancel}
	v.export = x
	for i, w := range shown {
		server := v.nbdServer(w, len(shown), ctx.Done())
		x.servers = append(x.servers, server)
		x.done.Add(1)
		v.e.spawn(func() {
			defer x.done.Done()
			if err := server.Serve(ctx, doors[i]); err != nil && ctx.Err() == nil {
				v.log.Error("Serving a disk ended", "volume", w.ID, "error", err)
			}
		})
	}
	return nil
}

func (v *vm) stopExport() {
	v.mu.Lock()
	x := v.export
	v.export = nil
	v.mu.Unlock()
	if x != nil {
		x.cancel()
		x.done.Wait()
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
		return explainFailed(v.name()+" didn't go on.", err)
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
		v.guest, v.guestWas, v.agent = nil, "", ""
		if v.clock != nil {
			v.clock.cancel()
		}
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
	v.noting.Lock()
	defer v.noting.Unlock()
	ctx, cancel := context.WithTimeout(v.e.ctx, 5*time.Second)
	defer cancel()
	state, err := g.State(ctx)
	if err == nil {
		v.noteState(g, state)
	}
}

// noteState takes note of the guest's state, and says so when it has changed. The caller holds noting, since before it asked for the state.
func (v *vm) noteState(g hypervisor.Guest, state hypervisor.State) {
	stands := &api.Error{Code: api.CodeSpace, Sentence: v.name() + " stands still because its disk can't be written.",
		Next: fmt.Sprintf("Free some space on this device, then let it go on: tagalong vm resume %q", v.name()), Remedy: api.RemedyResume, Topic: api.TopicUnwritable}
	if disk := v.currentDisk(); disk != nil {
		switch why := disk.Info().NeedsCheck; {
		case why != "":
			stands = errNeedsCheck(v.name(), v.diskDir(), why)
		case v.second.Refused() && !v.second.Satisfied(disk):
			stands = errNoSecond(v.name())
		}
	}
	v.mu.Lock()
	changed := v.guest == g && v.guestWas != state && !(v.slowed && (state == hypervisor.StatePaused || state == hypervisor.StateRunning))
	if changed {
		v.guestWas = state
		v.problem = nil
		// A guest that came in as it stood at the giver's isn't this device's trouble yet.
		if state == hypervisor.StateIOError && v.ownerLocked() {
			v.problem = stands
		}
	}
	v.mu.Unlock()
	if changed {
		text := ""
		switch state {
		case hypervisor.StateRunning:
			text = v.name() + " is running."
			v.guestGoesOn(g)
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
