// Package directory knows who owns what: the fleet's devices, its VMs, their
// history, owners and replicas. Every device has a whole copy; there is no server.
//
// A [Record] is signed by its one writer and has a version, so that merging two
// copies is "the newer version wins":
//
//	device/<id>                 written by the device itself
//	member/<device>/<by>        by's word that the device was let in, or removed; see below
//	vm/<id>, vm/<id>/<root>     written by the owner of the term it names; version = term<<32 + n
//	transfer/<vm>/<term>        begins a term; never changes
//	fork/<vm>/<term>/<hash>     a transfer that contradicts another of the same term, kept as evidence
//	vmnote/<vm>/<term>          how the owner of that term came to it
//	vmreplica/<vm>/<device>     what the VM's owner knows of a device's replica; its stale set is in chunks
//	chunk/<hash>/<size>         a piece of a stale set, named by a replica's record; see below
//	local/...                   this device's own, never sent: addresses, hand-off states, settings, strikes
//
// # History
//
// The transfers of a VM are a tree: each names the hash of the one that it follows from. created, switch and returned come from
// the owner's hand and begin the next term. The others are forced: a takeover is signed by who takes; kept by who holds something
// that a takeover lacks; resolved by a person's choice, at a device that has a side. Forced terms skip ahead, above every term that
// the signer knows and by a number that depends on what it signs: so terms stay unique across branches, a term and a barrier stay
// an exact position, and a disk that has seen any of them can be written under the new one. Devices that act apart choose the
// same number once in 2^18 times; that is then treated as a double signature: each goes on with the transfer that it saw first, nothing
// joins the two again, and [Directory.Forks] and an error in the log are all that shows it. Who followed the wrong one has to export its
// disk and leave.
//
// [Directory.Heads] are the ends that count. Of the leaves, it leaves out
//
//   - what a choice has given up (not what came after it on that side: that is another conflict);
//   - what is void: a forced transfer whose writer was removed, and again its parent if nothing else follows; what a replica
//     kept if all takeovers beside it are void;
//   - what a replica has kept if another device has kept all of it, beside it. What the old owner has kept always counts, as there
//     may be a guest's memory;
//   - a choice whose side has gone on all the same: handed on by its owner, or chosen again with a higher term. What it gives up stays
//     given up. If choices that contradict each other leave nothing, the last one counts.
//
// A history that has overtaken a choice so may have a lower term than that. Its owner then signs the choice again ([Directory.Repeat]), so that
// its term is above all that the choice made anybody give up.
//
// One head: its receiver is the owner; if that was removed from the fleet the VM is an orphan, and can only be taken over. Several
// are a conflict, of which the highest term that isn't kept is preferred: [Directory.Owner], [Directory.Chain] and [Directory.VM]
// speak of it. All of this depends on nothing but the set of transfers and who was removed.
//
// Records about a VM count if the history gives their term to their writer, on whatever branch. A branch that began with a forced
// transfer has a record of its own, named by that term, so that a side that loses hasn't overwritten what the other said.
//
// [Directory.Relation] says whether a disk would lose anything by following a head. It goes by content: the head's term began
// at a position, in a term that began at another, and so on.
//
// # The fleet
//
// Who is in the fleet is what its members sign: a device that is paired gets a higher generation than any known, a removal names
// the highest known one, and of all words about a device the highest counts, removals before admissions. A member may hand on
// anybody's words: it could have let the writer in itself. What a removed device had said before others heard of its removal
// therefore stands, such as letting another one in, or itself again: look at the list of devices after a theft. Generations end at
// 2^20: who takes one to the end has used up that device's identity, which can then be removed, but not let in again. A device that hears
// of its removal forgets the fleet, keeps its VMs, and is a fleet of one; the next fleet counts it anew.
//
// Where a replica is stale is a set of blocks, cut into chunks of 2^18 blocks (1 GiB of disk; more of the largest disks), which
// are named by what they hold ([Directory.PutReplica], [Directory.StaleSet]). They are in the store only, never all in
// memory, and travel on demand: [Directory.Wants], [Directory.PutChunks]. One that nothing names is deleted two minutes later; all together
// take at most 1 GiB, for which the oldest sets of whoever has most give way.
//
// # What it guarantees
//
//   - What a method has stored when it returns nil survives the end of the
//     process and of the host (every commit is synced).
//   - Nothing of a history is ever overwritten. A second transfer for a term is
//     kept aside and reported as [ErrFork].
//   - Each thing is signed once: Give, TakeOver, Keep and Resolve return what they have signed before, also after a commit of
//     which nobody knows whether it happened ([ErrUnsure]).
//   - A hostile or damaged record is refused without harm, whatever it holds, and counted against its sender if no honest device
//     can have sent it ([Directory.Strikes]): who hands on what another one signed can't know what contradicts it elsewhere.
//   - Two directories that exchange what they hold become equal and have equal heads, in any order and on any way. After a double
//     signature each keeps its own, and all have the evidence.
//   - Clocks decide nothing.
//
// # What it does not
//
// It doesn't choose between histories, or tell anybody anything: package
// p2p carries the records. It does not say whether the VM may run on this
// device: that is subpackage baton, whose state is stored here in the same
// commit as the transfer it belongs to.
//
// A history only grows, by one record of about 600 bytes for each transfer and 200 for its note; nothing bounds it but
// [MaxRecords] for all records together, of which three quarters may be other devices' (at ten switches a day, some ten years;
// a hostile member can fill them, and what others say anew is then refused until MaxRecords is raised: all but that a member is removed),
// and the terms, which end at 2^31: enough for 8,000 forced transfers of one VM at least. The history of a removed VM stays
// until [Directory.ForgetVM].
//
// # Memory and time
//
// All but chunks is in memory. Heads are worked out from the leaves and the choices when somebody asks after a change of that
// VM's history or of the fleet, and are kept until the next one. That takes time in proportion to the sides that there are, however
// they lie to each other.
//
// # Formats
//
// What is stored has a format number; [Open] climbs from older ones and refuses newer ones. testdata has a directory of each.
//
// # A full disk
//
// The store under it dies of a full disk, so this package keeps a ballast file
// of 16 MiB, refuses writes with [ErrNoSpace] while less than 64 MiB are free,
// and gives the ballast up when less than 16 MiB are. For opening and closing it needs room besides: a spare of 48 MiB is given up for
// that on a disk that others have filled to the last byte, and taken again from what is left. So it opens on such a disk, again and
// again, unless somebody else takes the room in these seconds: then [Open] returns ErrNoSpace. What the store does by itself soon after it was opened, putting
// tables together, it doesn't do there, but when there is room again.
//
// # How to test it
//
// go test -race ./directory has a fleet with disks and wrong clocks do anything and compares it with the rules told once more
// (more of it: -run TestModel -rapid.checks=5000), a case for every rule of heads and relations, hostile records and
// histories (liars' ones as well: TestLiarsHistories), exchange in any order, kill -9 of a writing process and, as root on Linux, a full disk.
// FuzzApply, FuzzLoad, FuzzRemoval and FuzzTransfer look for what does harm (run them with -fuzzminimizetime=1x:
// the coverage of goroutines varies from run to run).
package directory
