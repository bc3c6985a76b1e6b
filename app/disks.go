package app

import (
	"log/slog"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

func (e *Engine) diskOptions(id string) vmdisk.Options {
	reserve := e.opt.Reserve
	if reserve == 0 {
		reserve = disktool.DefaultReserve
	}
	return vmdisk.Options{
		Reserve: reserve, Log: e.log.With("part", "disk", "vm", id),
		Troubled: func(reason string) { e.diskTroubled(id, reason) },
	}
}

// diskTroubled tells the person that a disk had an I/O error. Who closes the disk may wait for it, so it takes no locks of the
// engine's or a VM's.
func (e *Engine) diskTroubled(id, reason string) {
	name := "A VM"
	if r, ok := e.dir.VM(id); ok {
		name = r.Name
	}
	text := errNeedsCheck(name, e.diskDir(id), reason).Error()
	e.hub.publish(api.Event{Kind: "vm.problem", VM: id, Text: text})
}

func (e *Engine) diskDir(id string) string { return filepath.Join(e.vmDir(id), "disk") }

func nbdServer(disk *vmdisk.Store, log *slog.Logger) *nbd.Server {
	return &nbd.Server{Backend: disknbd.Backend{Disk: disk}, Log: log.With("part", "nbd")}
}

// nbdServer serves the VM's disk; the caller holds v.mu.
func (v *vm) nbdServer() *nbd.Server { return nbdServer(v.disk, v.log) }

// pendingDirty is what the giver knew of the other devices' replicas, until this device is the owner.
type pendingDirty struct {
	from     string
	position vmdisk.Position
	sets     []byte
}

// receiveDirty keeps what came with the transfer.
func (v *vm) receiveDirty(from string, t directory.Transfer, sets []byte) {
	v.mu.Lock()
	v.dirty = &pendingDirty{from: from, position: vmdisk.Position(t.Position), sets: sets}
	v.mu.Unlock()
}

// importDirty makes what the giver knew of the other replicas this disk's own knowledge, before it
// becomes active. Without it everything is copied to them again, which is slow but safe. It
// returns what the giver said of itself, or nil.
func (v *vm) importDirty(disk *vmdisk.Store) *pendingDirty {
	v.mu.Lock()
	d := v.dirty
	v.dirty = nil
	v.mu.Unlock()
	if d != nil && len(d.sets) > 0 {
		if err := disk.ImportDirty(d.sets, v.e.host.ID()); err != nil {
			v.log.Warn("The other replicas will be copied whole", "error", err)
		}
	}
	return d
}

// exportDirty is what the other devices lack, for the taker.
func (v *vm) exportDirty() []byte {
	disk := v.currentDisk()
	if disk == nil {
		return nil
	}
	sets, err := disk.ExportDirty()
	if err != nil {
		v.log.Warn("Describing the other replicas failed", "error", err)
		return nil
	}
	return sets
}
