// Package hydrate decides what is fetched next for a disk that isn't whole, and fetches it: the owner's disk after
// a switch to a replica that lacked blocks.
//
// A Hydrator knows the set of stale blocks. Whoever reads the disk asks Wait for the blocks first; whoever wrote whole
// blocks says so with Drop; and Run fetches from a Source and hands what came to a Sink until nothing is stale. What is
// fetched when:
//   - Demand before all else: blocks that somebody waits for, and no others, in turn among those who wait.
//   - Ahead: what follows for those who read in sequence (up to 32 MiB, twice what the Source has room for), told apart from each other and
//     from random readers. For who only just came it is 64 KiB, less and less as long as such readers don't go on.
//   - Pull: near the last demand, after it and then before it; then the regions that were read most often; then from
//     the beginning to the end.
//   - What failed is tried again after all else, block by block, so that one bad block keeps no other from arriving. What nobody has who
//     is there is left alone until that changes.
//
// How much is in flight of what nobody waits for is the Source's say (Room), within Options.Flight.
//
// What it guarantees:
//   - A block is never in flight twice: readers join the fetch that is under way, and the Source hears at once that it is urgent.
//   - A fetched block is handed to the Sink only if it was still stale when it came: a write wins.
//   - Wait returns nil only when none of its blocks is stale; it ends when its context does, when the Hydrator is closed, or
//     when no source was there for Options.Patience (ErrNoSource).
//   - Memory: Options.Demand buffers of MaxFetch bytes, Options.Flight for the others, and the sets.
//
// What it doesn't: it doesn't store, doesn't check what the Source sends (the source's protocol does) and doesn't remember
// across restarts. The set of stale blocks never grows.
//
// Tests: go test -race ./vmdisk/hydrate ; they run in fake time.
package hydrate
