package app

import (
	"context"
	"fmt"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disktool"
	"tagalong.org/tagalong/directory"
)

// A repair goes on after a restart until repairedKey says that it was done for the choice's term. checkKey says that the guest is
// to check its file systems at its next start on this device.
func repairedKey(vm string) string { return "repaired/" + vm }
func checkKey(vm string) string    { return "fsck/" + vm }

// repair reads every block of the disk, and has the guest check its file systems at its next start. The guest may run meanwhile.
func (v *vm) repair(ctx context.Context, j *job, term uint64) error {
	disk := v.currentDisk()
	if disk == nil {
		return errVMClosed
	}
	if err := v.e.dir.SetLocal(checkKey(v.id), []byte{'1'}); err != nil {
		return fmt.Errorf("note that the guest is to check its file systems: %w", err)
	}
	j.enter(phaseChecking)
	report, err := disktool.CheckOpen(ctx, disk, v.diskDir(), api.CheckDisk{Record: true}, j.progressOf)
	if err != nil {
		return disktool.Explain(v.diskDir(), err)
	}
	j.found(func(j *api.Job) { j.Check = report })
	if err := v.e.dir.SetLocal(repairedKey(v.id), fmt.Append(nil, term)); err != nil {
		return fmt.Errorf("note that the check is done: %w", err)
	}
	return nil
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

// checksFileSystems says that the guest is to check its file systems at this start.
func (v *vm) checksFileSystems() bool {
	b, err := v.e.dir.Local(checkKey(v.id))
	return err == nil && len(b) > 0
}

// fileSystemsAsked notes that the guest has been started with that.
func (v *vm) fileSystemsAsked() {
	if err := v.e.dir.SetLocal(checkKey(v.id), nil); err != nil {
		v.log.Warn("Noting that the guest checks its file systems failed", "error", err)
	}
}
