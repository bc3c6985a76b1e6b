package app

import (
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/app/volumes/window"
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

// nbdServer serves one of several volumes of the VM's store until ended is closed; the caller holds v.mu. All of them together need no more memory than
// one would.
func (v *vm) nbdServer(w volumes.Volume, several int, ended <-chan struct{}) *nbd.Server {
	b := disknbd.Backend{Disk: window.New(v.disk, w), Second: v.second.On(v.disk, ended)}
	return &nbd.Server{Backend: b, TotalMemory: nbd.DefaultTotalMemory / int64(several), Log: v.log.With("part", "nbd", "volume", w.ID)}
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
	if disk == nil || v.outgoing.Told() {
		return nil
	}
	sets, err := disk.ExportDirty()
	if err != nil {
		v.log.Warn("Describing the other replicas failed", "error", err)
		return nil
	}
	return sets
}
