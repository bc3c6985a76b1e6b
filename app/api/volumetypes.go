package api

import "tagalong.org/tagalong/app/volumes"

// NewDisk is a disk to be made: empty, or a copy of an image.
type NewDisk struct {
	// Name is what the person calls it; "" is a name that is made up.
	Name string `json:"name,omitempty"`
	// Bytes is its size; 0 is the image's.
	Bytes int64 `json:"bytes,omitempty"`
	// Image is an absolute path on this device; Format is raw, qcow2, vdi, vmdk or vhdx ("" = found out).
	Image  string `json:"image,omitempty"`
	Format string `json:"format,omitempty"`
}

// AddDisk gives a stopped VM one more disk.
type AddDisk struct {
	VM string `json:"vm"`
	NewDisk
}

// GrowDisk makes a disk of a stopped VM larger. Its partitions stay as they are: that is up to the guest.
type GrowDisk struct {
	VM string `json:"vm"`
	// Disk is its ID or its name; "" is the first.
	Disk  string `json:"disk,omitempty"`
	Bytes int64  `json:"bytes"`
}

// RemoveDisk takes a disk away from a stopped VM, with all that is on it, on every device.
type RemoveDisk struct {
	VM   string `json:"vm"`
	Disk string `json:"disk"`
}

// Disks are the VM's disks, the one that it boots from first, as far as its spec can be read.
func (s Spec) Disks() []volumes.Volume {
	table, err := s.Table()
	if err != nil {
		return nil
	}
	var list []volumes.Volume
	for _, v := range table.Of(volumes.Disk) {
		if !v.Making {
			list = append(list, v)
		}
	}
	return list
}
