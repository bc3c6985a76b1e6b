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
}
