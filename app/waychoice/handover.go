package waychoice

import (
	"time"

	"tagalong.org/tagalong/app/handover"
)

// What is waited for of a disk when a suspended VM is carried, beside its memory.
const (
	measure  = 2 * time.Second
	diskWait = 30 * time.Second
)

// HandOver says whether a suspended VM whose copy stands so may be handed over now. Its memory goes ahead: until it is there the person can call it
// off, and no device but the old one is needed for that. But a disk that lacks far more than the memory isn't waited for: then the VM is handed over,
// and both are read where they are needed. memory is how many bytes of the disk the saved memory takes.
func HandOver(c handover.Copy, memory int64) bool {
	switch {
	case c.Live:
		return true
	case !c.Standing || c.Comparing || c.Waited < measure || c.Rate <= 0:
		return false
	}
	rest := handover.Copy{Remaining: c.Remaining - memory, Rate: c.Rate}
	left, _ := rest.Left()
	own := handover.Copy{Remaining: memory, Rate: c.Rate}
	ahead, _ := own.Left()
	return left > max(diskWait, ahead)
}
