// Package custody does the durable steps by which a device comes to hold a VM, and lets go of it: what the pure machine of
// directory/baton asks for, done to the directory and the disk in the one order that a crash between any two of them survives.
//
// It decides nothing, waits for nobody and knows no guest: its methods are synchronous, and each may be called again after it
// failed or was interrupted. The engine and the fleet simulator call the same ones.
//
// # The order
//
//   - Giving: the signed transfer and the machine's state become durable in one commit, then the disk's own journal says that
//     the term was given. Only then may the transfer leave. A crash in between leaves a disk that could still be written, but a
//     machine that never asks for it.
//   - Taking: the transfer and the machine's state in one commit; then what the giver knew of the others' replicas is put into
//     the disk, and only then may the disk be written, under the new term.
//   - Taking onto a copy that isn't whole: what the giver says of it is durable (Keep) before this device says that it is ready. When the transfer
//     is durable the disk is told what it lacks (StaleIn, SetStale), what the others lack (ImportDirty), that the giver lacks nothing (SetClean), and
//     only then may be written. A disk that isn't where it was given, and wasn't told what it lacks, is never written (ErrUntold).
//   - Going back (the person's rollback): the takeover from this device itself, at the position that its copy was at, is durable; then the disk
//     drops what came since, and goes on under the new term. So it is wherever a disk that lacks blocks is given back or has lost.
//
// # What the number of a term means
//
// A number alone doesn't say of which side of a history it is. What refuses by number (a disk the terms that it gave away, a machine what is below
// its head's) is right because of one invariant, which holds wherever the directories are equal and there is no conflict:
//
//	The VM's term is above that of every choice that kept its history, and so above all that any device has given away by one.
//
// A forced transfer has it by its number. Only a hand-off that crossed a choice breaks it: consent counts more, and its number is the next one. Then the
// new owner signs the choice again as soon as it hears of it (Repeat), and goes on under that number. Until then its writes and offers are
// refused by whoever has set its side aside: such a copy stands still, it is never wrong. Nobody owns anything in between that it didn't before: the one who
// signs is the owner by the only head there is, and it owns that side after it. What was set aside stays with the first choice.
package custody
