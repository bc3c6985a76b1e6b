// Package directory knows who owns what: the fleet's devices, its VMs, their
// terms, owners and replicas' positions. Every device has a whole copy; there is
// no server.
//
// A [Record] is signed by its one writer and has a version, so that merging two
// copies is "the newer version wins":
//
//	device/<id>                 written by the device itself
//	vm/<id>                     written by the owner of the term it names; version = term<<32 + n
//	transfer/<vm>/<term>        written by the owner of the term before; never changes
//	fork/<vm>/<term>/<hash>     a transfer that contradicts another one, kept as evidence
//	local/...                   this device's own, never sent: members, hand-off states, settings
//
// The transfers of a VM are its chain: each names the hash of the one before
// and is signed by that one's receiver. Who owns a VM is what its chain says;
// a VM's record counts only if the chain's owner of its term wrote it.
//
// # What it guarantees
//
//   - What a method has stored when it returns nil survives the end of the
//     process and of the host (every commit is synced).
//   - Nothing of a chain is ever overwritten. A second transfer for a term is
//     kept aside and reported as [ErrFork].
//   - A hostile or damaged record is refused without harm, whatever it holds.
//   - Two directories that exchange what they hold become equal, in any order,
//     as far as they have the same members, and have no fork; with a fork each
//     keeps its own chain and all have the evidence.
//
// # What it does not
//
// It doesn't decide forks, take over by force, or tell anybody anything: package
// p2p carries the records. It does not say whether the VM may run on this
// device: that is subpackage baton, whose state is stored here in the same
// commit as the transfer it belongs to ([Directory.Give], [Directory.AppendTransfer]).
//
// # A full disk
//
// The store under it dies of a full disk, so this package keeps a ballast file
// of 16 MiB, refuses writes with [ErrNoSpace] while less than 64 MiB are free,
// and gives the ballast up when less than 16 MiB are.
//
// # How to test it
//
// go test -race ./directory runs a model check, hostile records, two directories
// in exchange, kill -9 of a writing process and, as root on Linux, a full disk.
// FuzzApply looks for records that do harm (run it with -fuzzminimizetime=1x:
// the coverage of its goroutines varies from run to run).
package directory
