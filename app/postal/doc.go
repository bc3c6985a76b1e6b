// Package postal decides which device pushes which VM's changes to which other device, and when: the push scheduler. It is pure: what is known
// goes in with a tick (Input), orders come out; it has no network, disk or clock of its own. Each device has one (Machine), and package app carries
// its orders out.
//
// # Who pushes
//
// Changes come from the site where the owner is: there the mirror brings them to all devices as they happen. From there, that site's acting
// postmaster (site.View.Acting) pushes them to each other site, to its postmaster, which pushes them on to the devices of its own site as soon as it has
// them, without limits. A device knows that it is where changes come from if it is the owner, if the owner is of its site now, or if what it
// has came by the owner's mirror (VM.Mirrored): so a postmaster goes on when the owner's laptop has left.
//
// Nothing hangs on a site's identity: what is remembered, how far a device is and how often a push to it failed, hangs on the device. Two
// that push the same at a time are harmless: the receiver takes one.
//
// # When
//
// To another site: at once if the device has nothing yet, or if the person asks (then whatever device they ask does it, postmaster or not); when nothing was written for Rest, but not within Gap of the last push
// there; and in any case when the device has been behind for Overdue, which also is how long a busy guest's changes may wait. Meanwhile what is written again
// coalesces. One push a site at a time, the VM that has waited longest first. One that failed, or was cut short, is tried again after a while that
// doubles, and at once when the device is connected anew; it goes on at the next block by itself.
//
// # What goes around what is stuck
//
// A site's postmaster to which pushes fail is gone around when a cut is overdue: the next device of the site in the order of IDs gets it. A device that stays
// behind what its site's postmaster has for twice as long gets a push of its own: perhaps the two aren't where they are believed to be. That begins when the
// postmaster has it: however long it took to get there, it isn't sent there twice. And who owns the VM, or is postmaster of another site, pushes what nobody has
// pushed for twice as long. So a wrong idea of who is where, or a postmaster that does nothing, costs time and traffic, and leaves nobody without a copy.
//
// To test: go test ./app/postal (tables, and random fleets in fake time).
package postal
