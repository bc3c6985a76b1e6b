// Package restore keeps restore points on a device: whole disks that a VM had and lost, each in a directory of its own beside
// the VM's disk, until the person deletes it.
//
//	vms/<vm>/kept/<id>/note.json   what it is (Point)
//	vms/<vm>/kept/<id>/disk/       the disk, as it was
//
// It guarantees that a disk becomes a restore point by one rename: at every moment, also after a crash between any two steps,
// the whole of it is at its old place or at its new one, and calling Take again goes on. Nothing here deletes a disk but Remove.
//
// It knows nothing of histories or owners, and opens no disk.
package restore
