package api

import "time"

// VerifyVM asks to compare a VM's disk with its copies.
type VerifyVM struct {
	VM string `json:"vm"` // ID or name
	// Overwrite makes copies what the VM's disk is also where nothing says which of the two is right.
	Overwrite bool `json:"overwrite,omitempty"`
	// Rate is how many bytes a second of this device's disk to read at most; 0 is no limit but what guests need.
	Rate int64 `json:"rate,omitempty"`
}

// Verification is what comparing a VM's disk with its copies found.
type Verification struct {
	VM      string    `json:"vm"`
	VMName  string    `json:"vm_name"`
	Started time.Time `json:"started"`
	// Sentence says it all in one.
	Sentence string `json:"sentence"`
	// Clean says that nothing is wrong, or not any more. Complete says that all of the disk was gone through, and every copy compared.
	Clean    bool `json:"clean"`
	Complete bool `json:"complete"`
	// Read is how much of the disk was gone through, holes included, AsRecorded how much of that is what this device recorded earlier; in bytes.
	Read       int64          `json:"read_bytes"`
	AsRecorded int64          `json:"as_recorded_bytes"`
	Copies     []VerifiedCopy `json:"copies"`
	// Findings are the damaged places, repaired or not; MoreFindings counts the bytes of further ones.
	Findings     []VerifyFinding `json:"findings"`
	MoreFindings int64           `json:"more_findings_bytes,omitempty"`
}

// VerifiedCopy is how one device's copy fared, in bytes of the disk.
type VerifiedCopy struct {
	Device     string `json:"device"`
	DeviceName string `json:"device_name"`
	// Equal is the same as the VM's disk now. Busy was written by the VM too often to tell. Behind is what the copy doesn't have yet, or what isn't on this
	// device yet: it can't be compared.
	Equal  int64 `json:"equal_bytes"`
	Busy   int64 `json:"busy_bytes"`
	Behind int64 `json:"behind_bytes,omitempty"`
	// Missing is why it wasn't compared, or not farther than Until.
	Missing string `json:"missing,omitempty"`
	Until   int64  `json:"until,omitempty"`
}

// VerifyFinding is a damaged place: a range of the disk in bytes, for the person a sentence about it and what to do. Here and Copies are the
// outcomes for programs, of the disk of the VM and of each copy that differed, by device: "repaired", "sent" (repaired, not compared since),
// "stuck", "damaged", "undecided", "better", "withheld".
type VerifyFinding struct {
	Off      int64             `json:"off"`
	Len      int64             `json:"len"`
	Open     bool              `json:"open"`
	Sentence string            `json:"sentence"`
	Next     string            `json:"next,omitempty"`
	Here     string            `json:"here,omitempty"`
	Copies   map[string]string `json:"copies,omitempty"`
	// Names are what the devices of Copies are called.
	Names map[string]string `json:"names,omitempty"`
}

// What became of a damaged place, of the disk of a VM or of a copy.
const (
	VerifyRepaired  = "repaired"
	VerifySent      = "sent"
	VerifyStuck     = "stuck"
	VerifyDamaged   = "damaged"
	VerifyUndecided = "undecided"
	VerifyBetter    = "better"
	VerifyWithheld  = "withheld"
)

// OpenFor are the devices whose copies aren't right there, in no order.
func (f *VerifyFinding) OpenFor() (devices []string) {
	for device, o := range f.Copies {
		if o != VerifyRepaired && o != VerifySent {
			devices = append(devices, device)
		}
	}
	return devices
}

// FoundDamage is a damaged place that is remembered.
type FoundDamage struct {
	At time.Time `json:"at"` // when it was found
	VerifyFinding
}

// Damage is what verifications found to be wrong with a VM's disk or its copies: what is still wrong, and what was repaired within a week.
type Damage struct {
	At   time.Time `json:"at"`   // when the last of it was found
	Open bool      `json:"open"` // something is wrong still
	// Found is in the order in which it was found; More is how many bytes further places cover.
	Found []FoundDamage `json:"found"`
	More  int64         `json:"more_bytes,omitempty"`
}

// Verifying is how far the background verification of a VM is.
type Verifying struct {
	// Ended is when a whole round last ended; zero is never. Next is when the next one begins at the soonest; zero while one is under way, or due.
	Ended time.Time `json:"ended,omitzero"`
	Next  time.Time `json:"next,omitzero"`
	// Began is when the round under way began; zero if none is. It has gone through Done of Total bytes.
	Began time.Time `json:"began,omitzero"`
	Done  int64     `json:"done_bytes"`
	Total int64     `json:"total_bytes"`
	// Rate is in bytes a second; it and ETA are zero when unknown.
	Rate int64         `json:"rate"`
	ETA  time.Duration `json:"eta_ns,omitempty"`
	// Rests is why it doesn't go on, or only slowly: one of the VerifyRests; "" if nothing is known to be in its way.
	Rests string `json:"rests,omitempty"`
}

// Why the background verification rests.
const (
	VerifyRestsBattery = "battery" // this device is on its battery
	VerifyRestsGuests  = "guests"  // VMs use their disks: a step every half a minute at most
	VerifyRestsAlone   = "no-copy" // no copy can be compared now
	VerifyRestsFailed  = "failed"  // its last step failed; it is tried again some minutes later
)
