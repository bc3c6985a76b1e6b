// Package volumes cuts the address space of a VM's one disk store into volumes: the guest's disks, the variables of its
// firmware, and its memory while it is suspended. It is pure: a [Table] is a value, and every change makes a new one.
//
// # Why one store
//
// What lies in one store has one order of writes, one term and one replica per device: wherever a replica stands, all
// volumes are of the same moment. A suspended VM's memory fits the disks beside it because both are there, or neither.
//
// # What a table guarantees
//
//   - It is append-only. An extent is never moved, shortened or given to another volume; a removed volume stays, marked,
//     and its place is never used again. So a newer table fits every older content of the store: what isn't there yet
//     reads as zeros. The table and the position of the store need no common commit. [Table.Extends] says whether one
//     table can have become of another.
//   - The first volume is a disk that begins at 0: while it has one extent, the store's base file boots without us.
//   - [Table.Check] accepts nothing that overlaps, overflows or is larger than a store can be, whoever wrote it.
//
// # What it does not
//
// It knows neither the store nor the directory. Who changes a table writes it to the VM's spec first, then lets the store
// grow to [Table.Space], and only then lets anything use the new place.
package volumes
