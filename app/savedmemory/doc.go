// Package savedmemory keeps the memory of a suspended VM in a volume of its own store.
//
// The volume begins with a [Header] in its first block; from the second on there is the memory, as the hypervisor wrote it, in zstd.
//
// # What it guarantees
//
//   - The memory is durable before the header is, and the header is durable when [Save] returns. [Clear] is durable when it returns: it is called
//     before the guest goes on. All of that, and the guest's disks, are in one order of writes. So wherever any replica stands, there is a header exactly if
//     the disks beside it are those that the memory belongs to. No position has to be noted, and none can be wrong.
//   - Nothing that was damaged, cut short or made up becomes a running guest: the header has a checksum of its own and the hash of all
//     that is stored, and [Load] fails unless that is what was read. Memory is bounded whatever is there.
//
// # What it does not
//
// It knows no guest and no hypervisor, and doesn't see to it that nobody writes the disks while there is a header: who lets anything else
// write them calls Clear first.
package savedmemory
