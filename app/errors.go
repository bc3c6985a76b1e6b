package app

import (
	"errors"
	"fmt"
	"sort"
	"syscall"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/hypervisor"
)

// The sentences a person may get from the engine, in one place.

func dataDirError(dir string, err error) error {
	return &api.Error{Code: api.CodeInternal, Sentence: "Tagalong can't use its data directory " + dir + ".",
		Next: "Check that it is yours and its disk isn't full.", Cause: err.Error()}
}

func errNoSuchVM(name string, known []string) error {
	e := &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no VM called %q.", name)}
	if near := nearest(name, known); near != "" {
		e.Next = fmt.Sprintf("Did you mean %q?", near)
	} else if len(known) == 0 {
		e.Next = "Make one with: tagalong vm create"
	} else {
		e.Next = "See them all with: tagalong vm list"
	}
	return e
}

func errNoSuchDevice(name string, known []string) error {
	e := &api.Error{Code: api.CodeNotFound, Sentence: fmt.Sprintf("There is no device called %q in your fleet.", name)}
	switch near := nearest(name, known); {
	case near != "":
		e.Next = fmt.Sprintf("Did you mean %q?", near)
	case len(known) == 0:
		e.Next = "Pair one with: tagalong pair"
	default:
		e.Next = "See them all with: tagalong devices"
	}
	return e
}

func errElsewhere(vm, owner string) error {
	return &api.Error{Code: api.CodeElsewhere, Sentence: fmt.Sprintf("%s is on %s.", vm, owner),
		Next: fmt.Sprintf("Bring it here first: tagalong switch %q", vm)}
}

func errUnreachable(device string) error {
	return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s can't be reached.", device),
		Next: "Check that it is on, on the same network, and that Tagalong runs there."}
}

func errBusy(vm, op string) error {
	return &api.Error{Code: api.CodeBusy, Sentence: fmt.Sprintf("%s is busy: %s.", vm, op), Next: "Try again when that is done (tagalong status)."}
}

func errConflict(sentence, next string) *api.Error {
	return &api.Error{Code: api.CodeConflict, Sentence: sentence, Next: next}
}

// explainHypervisor turns a hypervisor's failure to start a guest into a sentence.
func explainHypervisor(err error) error {
	return explainFailed("The VM couldn't be started.", err)
}

// explainProbe does so where nothing was to be started: the hypervisor was only looked at.
func explainProbe(err error) error {
	return explainFailed("QEMU on this device can't be used.", err)
}

// explainFailed does so where it was asked for something else: sentence says what didn't happen, for all causes that have no sentence of their own.
func explainFailed(sentence string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hypervisor.ErrMissing):
		return &api.Error{Code: api.CodeNoHypervisor, Sentence: "QEMU isn't installed on this device.",
			Next: "Install it (on Debian and Ubuntu: sudo apt install qemu-system-x86 qemu-utils) and try again.", Cause: err.Error()}
	case errors.Is(err, hypervisor.ErrTooOld):
		return &api.Error{Code: api.CodeNoHypervisor, Sentence: "QEMU on this device is too old.", Next: "Install QEMU 7.2 or later.", Cause: err.Error()}
	case errors.Is(err, hypervisor.ErrNoFirmware):
		return &api.Error{Code: api.CodeNoHypervisor, Sentence: "There is no UEFI for VMs on this device.",
			Next: "Install it (on Debian and Ubuntu: sudo apt install ovmf) and try again.", Cause: err.Error()}
	case errors.Is(err, hypervisor.ErrHardware):
		return &api.Error{Code: api.CodeConflict, Sentence: "This version of Tagalong doesn't know the virtual hardware of that VM.",
			Next: "Update Tagalong on this device.", Cause: err.Error()}
	case errors.Is(err, hypervisor.ErrNoBridge):
		return errNoBridge(err)
	case errors.Is(err, syscall.ENOSPC):
		return errNoSpace(err)
	default:
		return &api.Error{Code: api.CodeInternal, Sentence: sentence, Next: "The engine's log has QEMU's words.", Cause: err.Error()}
	}
}

// errNoBridge is what becomes of a VM that was to be on a bridge.
func errNoBridge(err error) error {
	return &api.Error{Code: api.CodeConflict, Sentence: "The VM can't be put on this device's network bridge.",
		Next:  "Let QEMU do that (sudo chmod u+s /usr/lib/qemu/qemu-bridge-helper; echo allow all | sudo tee /etc/qemu/bridge.conf), or hide the VM behind this device: tagalong devices bridge none",
		Cause: err.Error()}
}

func errNoSpace(err error) error {
	return &api.Error{Code: api.CodeSpace, Sentence: "This device's disk is too full.", Next: "Free some space and try again.", Cause: err.Error()}
}

// errNeedsCheck is the problem of a disk that had an I/O error, until a check of it was clean.
func errNeedsCheck(vm, dir, why string) *api.Error {
	return &api.Error{Code: api.CodeDamaged, Sentence: fmt.Sprintf("%s's disk on this device had a read or write error: the drive may be failing.", vm),
		Next: fmt.Sprintf("See what is lost, if anything: tagalong disk check %q", dir), Cause: why}
}

// errNoSecond is the problem of a VM that stands still until another device has its last writes.
func errNoSecond(vm string) *api.Error {
	return &api.Error{Code: api.CodeUnreachable, Sentence: fmt.Sprintf("%s stands still until another device has its last writes, as it was set to.", vm),
		Next: fmt.Sprintf("Connect another device, and it goes on by itself; or let it go on with one copy: tagalong vm set %q --sync one", vm)}
}

// errSignedTwice is the problem of a VM of which two devices say, under one number, that they own it: after a device was restored from a
// backup, or two takeovers apart that came to the same number. Neither can follow the other.
func errSignedTwice(vm, here, there string) *api.Error {
	return &api.Error{Code: api.CodeConflict, Sentence: fmt.Sprintf("%s and %s both own %s, under the same number: they can't be brought together. Nothing was overwritten on either.", here, there, vm),
		Next: fmt.Sprintf("On the one that you don't go on with, save what you need (tagalong disk export), then remove it on another device: tagalong devices remove %q", there)}
}

// nearest is the known name that name was probably meant to be, or "".
func nearest(name string, known []string) string {
	best, bestDistance := "", 3
	sorted := append([]string(nil), known...)
	sort.Strings(sorted)
	for _, k := range sorted {
		if d := distance(name, k); d < bestDistance && d < max(len(k), 2) {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is Levenshtein's, with letters of either case alike.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x) > 64 || len(y) > 64 {
		return 64
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i, c := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j, d := range y {
			cost := 1
			if lower(c) == lower(d) {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(y)]
}

func lower(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}
