package app

import (
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
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
		Record:   e.recording,
		Copy:     copyTurns{e, id},
		Seen:     func(off int64, p []byte) { e.blocks.Learn(id, off, p) },
		Troubled: func(reason string) { e.diskTroubled(id, reason) },
		Renamed:  func(from, to vmdisk.Position) error { return custody.Renamed(e.noteOf(id), from, to) },
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

// nbdServer serves the VM's disk until ended is closed; the caller holds v.mu.
func (v *vm) nbdServer(ended <-chan struct{}) *nbd.Server {
	return &nbd.Server{Backend: disknbd.Backend{Disk: v.disk, Second: v.second.On(v.disk, ended)}, Log: v.log.With("part", "nbd")}
}

// receiveDirty keeps what came with the transfer.
func (v *vm) receiveDirty(from string, t directory.Transfer, sets []byte) {
	v.mu.Lock()
	v.word = &custody.Word{From: from, Position: vmdisk.Position(t.Position), Sets: sets}
	v.mu.Unlock()
}

// takeWord is what the giver said of the replicas, once; nil if nothing.
func (v *vm) takeWord() *custody.Word {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := v.word
	v.word = nil
	return w
}

// exportDirty is what the other devices lack, for the taker.
func (v *vm) exportDirty() []byte {
	disk := v.currentDisk()
	if disk == nil || v.outgoing.hasTold() {
		return nil
	}
	sets, err := disk.ExportDirty()
	if err != nil {
		v.log.Warn("Describing the other replicas failed", "error", err)
		return nil
	}
	return sets
}
