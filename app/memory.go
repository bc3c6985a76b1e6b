package app

import (
	"errors"

	"tagalong.org/tagalong/app/admission"
)

var errMemory = errors.New(reasonMemory)

// admit promises the guest that is about to start here its memory, or refuses what would drive the system into swapping. The promise
// holds until admitted.
func (v *vm) admit(bytes int64) error {
	v.e.admissions.Lock()
	defer v.e.admissions.Unlock()
	if free, known := v.e.memoryLeft(v); known && free < bytes {
		return errMemory
	}
	v.mu.Lock()
	v.claimed = bytes
	v.mu.Unlock()
	return nil
}

// admitted says that the guest has started, and counts by itself from now on, or hasn't.
func (v *vm) admitted() {
	v.mu.Lock()
	v.claimed = 0
	v.mu.Unlock()
}

// memoryLeft is how many bytes of memory this device has for a guest of v's, beside what the others may still come to need; false if the
// system doesn't say.
func (e *Engine) memoryLeft(v *vm) (int64, bool) {
	free := e.free()
	if free == 0 {
		return 0, false
	}
	var others []admission.Claim
	for _, o := range e.allVMs() {
		if o == v {
			continue
		}
		o.mu.Lock()
		guest, claimed := o.guest, o.claimed
		o.mu.Unlock()
		switch {
		case guest != nil:
			r, ok := o.record()
			spec, err := specOf(r)
			if ok && err == nil {
				others = append(others, admission.Claim{Promised: spec.MemoryKiB << 10, Taken: guest.Resident()})
			}
		case claimed > 0:
			others = append(others, admission.Claim{Promised: claimed})
		}
	}
	return admission.Left(free, others), true
}

// errNoRoom says that this device's disk is too full to become a VM's owner.
var errNoRoom = errors.New(reasonNoRoom)
