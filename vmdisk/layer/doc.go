// Package layer keeps one layer of a virtual disk: some of its blocks, in a sparse file of their own, beside the set of those
// that it has.
//
// A layer is two files in the disk's directory: NAME.data, as long as the disk, each block at its own offset, and NAME.map, a
// journal of the set. vmdisk/FORMAT.md has every byte. Memory is that of the set: proportional to what the layer has.
//
// What it guarantees:
//   - After Sync the blocks that the layer had are there whatever happens. A block counts as there, after a power cut, only if
//     its content is durable: the set is stored after the content.
//   - A layer of kind Written also keeps, when the process dies, every write that returned. Each write into a block that isn't
//     durable yet is preceded by a note with a checksum of the new content; after a crash the block counts if it fits one.
//   - A damaged map is ErrCorrupt, never a smaller set; only a torn end, which was never promised, is dropped.
//
// What it doesn't: it doesn't serialise overlapping calls (its user does, with claims), doesn't know what is below it, and
// doesn't check bounds.
//
// Methods may be called from any goroutine; buffers are the caller's again when a call returns.
//
// Tests: go test ./vmdisk/layer (crashes at random against a model; FuzzMap).
package layer
