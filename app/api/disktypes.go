package api

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
	// Size and Allocated are in bytes: of the disk, and of the space that it takes.
	Size      int64    `json:"size_bytes"`
	Allocated int64    `json:"allocated_bytes"`
	Role      DiskRole `json:"role"`
	// Active says that it is open for writing now.
	Active bool `json:"active"`
	// Term is the highest it has seen, Given the highest that this device gave away.
	Term     uint64   `json:"term"`
	Given    uint64   `json:"given"`
	Position Position `json:"position"`
	// Unflushed says that something was written after Position.
	Unflushed bool       `json:"unflushed"`
	Peers     []DiskPeer `json:"peers"`
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
