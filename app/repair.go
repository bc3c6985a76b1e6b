package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/mend"
	"tagalong.org/tagalong/vmdisk"
)

// A repair goes on after a restart until repairedKey says that it was done for the choice's term. The other half of it, that the
// guest checks its file systems at its next start, follows from the history and the VM's record, so that it holds wherever the VM is
// started next.
func repairedKey(vm string) string { return "repaired/" + vm }

// repair reads every block of the disk and mends from the other devices' copies what isn't as it was recorded. The guest may run
// meanwhile.
func (v *vm) repair(ctx context.Context, j *job, term uint64) error {
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	j.enter(phaseChecking)
	check := func() (*api.DiskCheck, error) {
		report, err := disktool.CheckOpen(ctx, disk, v.diskDir(), api.CheckDisk{Record: true}, j.progressOf)
		if err != nil {
			return nil, disktool.Explain(v.diskDir(), err)
		}
		return report, nil
	}
	report, err := check()
	// Damage beyond what one report can name shows up in the next one. A drive that doesn't keep what it is given ends it.
	for before := int64(math.MaxInt64); err == nil && damage(report) > 0 && damage(report) < before && v.mend(ctx, disk, report.Damaged) > 0; {
		before = damage(report)
		report, err = check()
	}
	if err != nil {
		return err
	}
	j.found(func(j *api.Job) { j.Check = report })
	if err := v.e.dir.SetLocal(repairedKey(v.id), fmt.Append(nil, term)); err != nil {
		return fmt.Errorf("note that the check is done: %w", err)
	}
	return nil
}

// damage is how many bytes aren't as they were recorded, or can't be read.
func damage(r *api.DiskCheck) int64 {
	n := r.MoreDamaged
	for _, d := range r.Damaged {
		n += d.Len
	}
	return n
}

// mend puts back what others still have of damaged places, and returns how many it could.
func (v *vm) mend(ctx context.Context, disk *vmdisk.Store, damaged []api.DiskDamage) (mended int) {
	for _, d := range damaged {
		for off := d.Off / vmdisk.MendUnit * vmdisk.MendUnit; off < d.Off+d.Len && ctx.Err() == nil; off += vmdisk.MendUnit {
			sum, ok, err := disk.Recorded(off)
			if !ok || err != nil {
				continue // nothing says what was there
			}
			b, err := v.fetchPiece(ctx, off, min(vmdisk.MendUnit, disk.Size()-off), sum)
			if err == nil {
				err = disk.Mend(b, off)
			}
			if err == nil {
				mended++
				continue
			}
			v.log.Info("A damaged place wasn't mended", "off", off, "error", err)
		}
	}
	return mended
}

// pieceTimeout bounds the asking of one device for one piece.
const pieceTimeout = 20 * time.Second

func (e *Engine) askPiece(ctx context.Context, device string, p mend.Piece) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, pieceTimeout)
	defer cancel()
	s, err := e.host.Open(ctx, device, mend.Protocol)
	if err != nil {
		return nil, err
	}
	return mend.Ask(ctx, s, p)
}

var errNotForYou = errors.New("only the VM's owner may read a copy")

// handleMend gives a VM's owner what it has lost of its disk, if it can name it.
func (e *Engine) handleMend(ctx context.Context, s p2p.Stream) {
	owner := s.Peer()
	err := mend.Answer(ctx, s, func(id string, b []byte, off int64) error {
		v := e.vm(id)
		if v == nil || v.ownerID() != owner {
			return errNotForYou
		}
		disk := v.currentDisk()
		if disk == nil {
			return errVMClosed
		}
		return disk.ReadAt(b, off)
	})
	if err != nil {
		e.log.Debug("Giving a piece of a disk failed", "device", owner, "error", err)
	}
}

// repairDue says that this device owns the VM by a choice that asked for a repair, which isn't done yet.
func (v *vm) repairDue() (t directory.SignedTransfer, due bool) {
	heads := v.e.dir.Heads(v.id)
	if len(heads) == 0 {
		return t, false
	}
	t = heads[0]
	if t.Kind != directory.KindResolved || t.To != v.e.host.ID() || t.How != string(api.ResolveRepair) {
		return t, false
	}
	done, err := v.e.dir.Local(repairedKey(v.id))
	return t, err != nil || string(done) != fmt.Sprint(t.Term)
}

// checksFileSystems says that the guest is to check its file systems at its next start, by the choice of which term.
func (v *vm) checksFileSystems() (term uint64, due bool) {
	r, ok := v.record()
	if !ok {
		return 0, false
	}
	for _, t := range slices.Backward(v.e.dir.Chain(v.id)) {
		if t.Kind == directory.KindResolved && t.How == string(api.ResolveRepair) {
			return t.Term, t.Term > r.Checked
		}
	}
	return 0, false
}

// fileSystemsAsked lets the fleet know that the guest has been started with that. If that fails it checks them once more.
func (v *vm) fileSystemsAsked(term uint64) {
	v.saving.Lock()
	defer v.saving.Unlock()
	r, ok := v.record()
	if !ok {
		return
	}
	r.Checked = term
	if err := v.e.dir.PutVM(r); err != nil {
		v.log.Warn("Noting that the guest checks its file systems failed", "error", err)
	}
}
