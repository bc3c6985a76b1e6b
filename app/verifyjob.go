package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/verify"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/throttle"
)

// VerifyVM implements api.Engine.
func (e *Engine) VerifyVM(_ context.Context, req api.VerifyVM) (*api.Job, error) {
	v, err := e.find(req.VM)
	if err != nil {
		return nil, err
	}
	if err := v.mine(); err != nil {
		return nil, err
	}
	disk := v.currentDisk()
	if disk == nil {
		return nil, errConflict("The disk of "+v.name()+" isn't on this device.", "See where it is with: tagalong vm show")
	}
	about := api.Job{Kind: kindVerify, VM: v.id, VMName: v.name(), Total: disk.Size()}
	return e.startJob(about, func(ctx context.Context, j *job) error {
		began := time.Now()
		w := verifying{overwrite: req.Overwrite, next: func(off int64, _ *verify.Result) error { j.progress(off); return nil }}
		if req.Rate > 0 {
			w.pace = throttle.New(req.Rate).Wait
		}
		r, skipped, err := v.verify(ctx, w)
		if r == nil {
			return explainVerify(v.name(), err)
		}
		found := v.verification(r, skipped, began, disk.Size())
		j.found(func(j *api.Job) { j.Verification = found })
		v.passed(r, found, err == nil)
		return explainVerify(v.name(), err)
	})
}

// explainVerify is an error of a verification in words.
func explainVerify(name string, err error) error {
	switch {
	case errors.Is(err, vmdisk.ErrInactive), errors.Is(err, vmdisk.ErrClosed), errors.Is(err, errVMClosed):
		return errConflict(name+" was moved or closed meanwhile.", "Verify it on the device that has it now: tagalong verify "+name)
	}
	return err
}

// verification is a result as the person reads it.
func (v *vm) verification(r *verify.Result, skipped map[string]error, began time.Time, size int64) *api.Verification {
	out := &api.Verification{
		VM: v.id, VMName: v.name(), Started: began, Clean: r.Clean(), Complete: r.Read == size, Read: r.Read, AsRecorded: r.AsRecorded,
		Copies: []api.VerifiedCopy{}, Findings: []api.VerifyFinding{}, MoreFindings: r.MoreFindings,
	}
	for device, c := range r.Copies {
		x := api.VerifiedCopy{Device: device, DeviceName: v.e.deviceName(device), Equal: c.Equal, Busy: c.Busy, Behind: c.Behind}
		if c.Err != nil {
			x.Missing, x.Until = notCompared(c.Err), c.Until
			v.log.Info("A copy dropped out of a verification", "device", device, "off", c.Until, "error", c.Err)
		}
		out.Copies = append(out.Copies, x)
	}
	for device, err := range skipped {
		out.Copies = append(out.Copies, api.VerifiedCopy{Device: device, DeviceName: v.e.deviceName(device), Missing: notCompared(err)})
	}
	slices.SortFunc(out.Copies, func(a, b api.VerifiedCopy) int {
		return strings.Compare(a.DeviceName+a.Device, b.DeviceName+b.Device)
	})
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, v.finding(f))
	}
	compared := 0
	for _, c := range out.Copies {
		out.Complete = out.Complete && c.Missing == ""
		if c.Missing == "" {
			compared++
		}
	}
	out.Sentence = verdict(out, compared)
	return out
}

// notCompared says, after a device's name, why its copy wasn't compared.
func notCompared(err error) string {
	var forbidden forbiddenError
	switch {
	case errors.Is(err, errNotCompared), errors.Is(err, verify.ErrDetached), errors.Is(err, verify.ErrBehind):
		return errNotCompared.Error()
	case errors.As(err, &forbidden):
		return "is at another site, and not compared now: " + forbidden.sentence
	case errors.Is(err, p2p.ErrProtocol), errors.Is(err, verify.ErrVersion):
		return "has an older version of Tagalong"
	case errors.Is(err, p2p.ErrNotConnected), errors.Is(err, p2p.ErrConnLost):
		return "can't be reached"
	case errors.Is(err, verify.ErrReplica):
		return "couldn't go on"
	}
	return "couldn't be asked"
}

// verdict is a verification in one sentence. compared is how many copies went through to the end.
func verdict(r *api.Verification, compared int) string {
	open := 0
	for _, f := range r.Findings {
		if f.Open {
			open++
		}
	}
	missing := ""
	if n := len(r.Copies) - compared; n > 0 {
		missing = fmt.Sprintf(" %d of %d copies couldn't be compared.", n, len(r.Copies))
	}
	switch {
	case open > 0 || r.MoreFindings > 0:
		return fmt.Sprintf("Something is wrong with %s or its copies, and it couldn't all be repaired.", r.VMName) + missing
	case len(r.Findings) > 0:
		return fmt.Sprintf("Damage was found in %s or its copies, and repaired.", r.VMName) + missing
	case compared == 0:
		return fmt.Sprintf("Nothing is wrong with the disk of %s for all that is recorded, but no copy could be compared with it.", r.VMName)
	case compared == 1:
		return fmt.Sprintf("%s and its copy are equal.", r.VMName) + missing
	}
	return fmt.Sprintf("%s and its %d copies are equal.", r.VMName, compared) + missing
}

// finding is a finding as the person reads it.
func (v *vm) finding(f verify.Finding) api.VerifyFinding {
	out := api.VerifyFinding{Off: f.Off, Len: f.Len, Open: f.Open(), Here: string(f.Here), Copies: map[string]string{}, Names: map[string]string{}}
	by := map[verify.Outcome][]string{}
	for _, device := range slices.Sorted(maps.Keys(f.Copies)) {
		o := f.Copies[device]
		out.Copies[device], out.Names[device] = string(o), v.e.deviceName(device)
		by[o] = append(by[o], v.e.deviceName(device))
	}
	place := fmt.Sprintf("%d bytes at byte %d", f.Len, f.Off)
	var say []string
	switch f.Here {
	case verify.Repaired:
		say = append(say, "On this device "+place+" weren't what had been recorded; they were put right from another device's copy.")
	case verify.Damaged:
		say = append(say, "On this device "+place+" can't be read, or aren't what was recorded, and no other device has what was. Nothing was changed there.")
		out.Next = "The drive may be failing: look into the system's log, and have the VM check its file systems."
	}
	for _, x := range []struct {
		o          verify.Outcome
		text, next string
	}{
		{verify.Repaired, "%s of the copy on %s were damaged; they were sent again and are right now.", ""},
		{verify.Sent, "%s of the copy on %s were damaged; they have been sent again, but the VM writes there too often to compare them.", ""},
		{verify.Stuck, "%s of the copy on %s are damaged, and still are after they were sent again.", "That device's drive may be failing: look into its system's log."},
		{verify.Undecided, "%s differ between this device and the copy on %s, and nothing says which is right. Nothing was changed.",
			"If the VM is well, make the copy what it sees: tagalong verify " + v.name() + " --overwrite"},
		{verify.Better, "%s differ between this device and the copy on %s, which is what was recorded there: it is probably this device's disk that is damaged. Nothing was changed.",
			"Copy out of the VM what matters and have it check its file systems. If it is well after all: tagalong verify " + v.name() + " --overwrite"},
	} {
		if names := by[x.o]; len(names) > 0 {
			say = append(say, fmt.Sprintf(x.text, place, strings.Join(names, ", ")))
			if out.Next == "" {
				out.Next = x.next
			}
		}
	}
	out.Sentence = strings.Join(say, " ")
	return out
}
