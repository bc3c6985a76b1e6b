package api

import "tagalong.org/tagalong/app/volumes"

// DiskRole is what a disk's directory is to the disk's history.
type DiskRole string

// The roles of a disk.
const (
	DiskNew        DiskRole = "new"        // whole, and never had an owner
	DiskOwner      DiskRole = "owner"      // this device may write it
	DiskReplica    DiskRole = "replica"    // whole; another device owns it, or did last
	DiskIncomplete DiskRole = "incomplete" // its first copy, or an import, hasn't ended
)

// DiskInfo is what there is to know of one disk on this device.
type DiskInfo struct {
	// Dir is its directory, an absolute path.
	Dir string `json:"dir"`
	ID  string `json:"id"`
	// VM is the VM that has it, when an engine tells.
	VM     string `json:"vm,omitempty"`
	VMName string `json:"vm_name,omitempty"`
	// Volumes are its disks, and what else is in it; Size and Allocated are in bytes, of all together: how large it is, and the space that it takes.
	Volumes   []volumes.Volume `json:"volumes,omitempty"`
	Size      int64            `json:"size_bytes"`
	Allocated int64            `json:"allocated_bytes"`
	Role      DiskRole         `json:"role"`
	// Active says that it is open for writing now.
	Active bool `json:"active"`
	// Term is the highest it has seen, Given the highest that this device gave away.
	Term     uint64   `json:"term"`
	Given    uint64   `json:"given"`
	Position Position `json:"position"`
	// Unflushed says that something was written after Position.
	Unflushed bool `json:"unflushed"`
	// Stale is how many bytes of it aren't on this device yet. Before, if it isn't zero, is the position that the disk can be rolled
	// back to while it is made whole.
	Stale  int64      `json:"stale_bytes"`
	Before Position   `json:"before,omitzero"`
	Peers  []DiskPeer `json:"peers"`
	// Formats are the versions of what is stored in Dir, by name.
	Formats map[string]int `json:"formats"`
	// NeedsCheck is the first I/O error since the last clean check, or nothing.
	NeedsCheck string `json:"needs_check,omitempty"`
	// Problem is why the disk refuses to work, if it does.
	Problem *Error `json:"problem,omitempty"`
}

// DiskPeer is what a disk knows of another device's replica.
type DiskPeer struct {
	Device     string `json:"device"`
	DeviceName string `json:"device_name,omitempty"`
	// State is "live", "catching up", "copying" or "detached".
	State string `json:"state"`
	// Lacks is how many bytes the device may lack; Position is the newest it has acknowledged.
	Lacks    int64    `json:"lacks_bytes"`
	Position Position `json:"position"`
}

// ServedDisk is a disk that `tagalong disk serve` serves.
type ServedDisk struct {
	Dir    string `json:"dir"`
	ID     string `json:"id"`
	Size   int64  `json:"size_bytes"`
	Socket string `json:"socket"`
	Export string `json:"export"`
	// URI names the export, for NBD clients.
	URI string `json:"uri"`
	// ReadOnly says that writes are refused, Why for what reason.
	ReadOnly bool     `json:"read_only"`
	Why      string   `json:"why,omitempty"`
	Term     uint64   `json:"term"`
	Position Position `json:"position"`
}

// DiskFormat is a format that a disk can be exported in.
type DiskFormat string

// The formats of exports.
const (
	DiskRaw   DiskFormat = "raw"
	DiskQcow2 DiskFormat = "qcow2"
)

// ExportDisk asks for a copy of a disk in a file.
type ExportDisk struct {
	// Disk is the VM's ID or name, or the disk's directory (an absolute path).
	Disk string `json:"disk"`
	// Volume is which of its disks, by ID or name; "" is the first.
	Volume string `json:"volume,omitempty"`
	// File is an absolute path on this device. One that is there is replaced only with Force.
	File  string `json:"file"`
	Force bool   `json:"force,omitempty"`
	// Format is "raw" if it is empty.
	Format DiskFormat `json:"format,omitempty"`
	// Position is which state of the disk to copy; the zero Position is the present one.
	Position Position `json:"position,omitzero"`
	// Rate is how many bytes a second to read and write at most; 0 is no limit.
	Rate int64 `json:"rate,omitempty"`
}

// DiskExport is a copy that was made.
type DiskExport struct {
	File   string     `json:"file"`
	Format DiskFormat `json:"format"`
	// Position is what the copy is.
	Position Position `json:"position"`
	// Size is the disk's, Allocated what the file takes, in bytes.
	Size      int64 `json:"size_bytes"`
	Allocated int64 `json:"allocated_bytes"`
}

// DiskSeed is what was read into a copy.
type DiskSeed struct {
	File string `json:"file"`
	// Read is how many bytes of the file were read, holes included; Unreadable of these are left to be fetched.
	Read       int64 `json:"read_bytes"`
	Unreadable int64 `json:"unreadable_bytes,omitempty"`
}

// CheckDisk asks to read a disk through and compare it with what is recorded.
type CheckDisk struct {
	// Disk is the VM's ID or name, or the disk's directory (an absolute path).
	Disk string `json:"disk"`
	// Record remembers hashes of what has none yet, for the next check.
	Record bool `json:"record,omitempty"`
	// Rate is how many bytes a second to read at most; 0 is no limit.
	Rate int64 `json:"rate,omitempty"`
}

// DiskCheck is what a check found.
type DiskCheck struct {
	Dir string `json:"dir"`
	// Clean says that nothing is wrong: Findings and Damaged are empty. Cleared says that this took away the mark of a disk
	// that needed checking.
	Clean   bool `json:"clean"`
	Cleared bool `json:"cleared,omitempty"`
	// Findings is what is wrong; Notes are worth knowing, but nothing is wrong.
	Findings []DiskFinding `json:"findings"`
	Notes    []DiskFinding `json:"notes"`
	// Damaged has, for programs, the first places whose content is wrong or can't be read; MoreDamaged counts the bytes of further ones.
	Damaged     []DiskDamage `json:"damaged"`
	MoreDamaged int64        `json:"more_damaged_bytes,omitempty"`
	// What was read, in bytes: Verified is as it was recorded, of Unverified nothing was recorded, Busy was written
	// meanwhile. Recorded is what has a hash now and had none.
	Verified   int64 `json:"verified_bytes"`
	Unverified int64 `json:"unverified_bytes"`
	Busy       int64 `json:"busy_bytes"`
	Recorded   int64 `json:"recorded_bytes"`
}

// DiskFinding is a sentence about a disk or one of its files, and what to do about it.
type DiskFinding struct {
	File     string `json:"file,omitempty"`
	Sentence string `json:"sentence"`
	Next     string `json:"next,omitempty"`
}

// DiskDamage is a range of a disk, in bytes, that isn't what it was. Error is set if it can't be read.
type DiskDamage struct {
	Off   int64  `json:"off"`
	Len   int64  `json:"len"`
	Error string `json:"error,omitempty"`
}
