// Package switching carries out a switch: what giver and taker of a VM do while it moves, in which order, and how long each step may take.
//
// Whose the VM is, directory/baton decides; when a device is told to give or to take, a [Giver] or a [Taker] does the work and reports
// to the machine through its [Teller] or [Host]. What to do next is decided purely ([Rule], and handover.Rule for the disk's copy): from how
// much memory is left, how fast it leaves and is written anew, how the taker's copy stands, and how much time has passed. The runners are
// thin: one goroutine, straight on, that asks the rule and calls small interfaces. The engine plugs its disks, hypervisors and
// streams into them, the fleet simulator its models.
//
// # What it guarantees
//
//   - A Giver stops the guest, then fences the disk, then seals or drains it, in this order and before it says Prepared; it touches neither the disk's
//     term nor who owns it, so whatever becomes of it the guest can go on where it stands.
//   - Memory leaves only as far as the rule lets it, so the hypervisor never finishes by itself, until the guest stands still; from then on it
//     is never held back: a hypervisor that has been told to finish must not be stalled.
//   - A guest is stopped only when what is left is expected to take no longer than it may stand still ([Plan]); one that writes memory faster than it
//     leaves is slowed down by resting for a part of every tenth of a second, which flushes that wait for a second copy don't count as standing still.
//   - A Taker says Loaded only on its hypervisor's own proof, and writes nothing.
//   - Run ends soon after End or Abandon, whatever hangs, provided the interfaces heed their contexts.
//
// It doesn't decide whether the VM may run anywhere, and makes nothing durable but the disk's fence and its name.
//
// # A guest that goes ahead of its memory
//
// Where the person asks for it (post-copy), the guest is stopped after one pass, whatever is left then: only the devices' state leaves before the
// baton is given, the taker is Loaded when its hypervisor could run the guest, and what the giver's hypervisor still has comes after it, first what the guest
// touches. The giver keeps its hypervisor, its guest standing still, as it does until it hears that the taker is active; the taker doesn't say that
// before the memory is whole (a [Taker] that follows). Meanwhile a [Server] on the giver's side opens another line whenever one has broken, also when either engine was started
// anew, and both hypervisors go on where they were. Until the baton is given the guest can go on at the giver, whatever becomes of the line: its
// hypervisor is kept from noticing that.
//
// If the giver's engine dies in the moment between the last of the devices' state and the baton's being given, its next one calls the guest back, which goes on there
// (hypervisor.PostCopier's CallBack). A taker's hypervisor that waits for a page while its line is broken answers nothing but the offer of another line, which the next engine of a
// taker can make it too.
//
// What it costs: until the memory is whole it is in two places. If either hypervisor ends before, or the giver's can't go on, it is lost: the guest is
// ended at the taker, whose disk has all that was flushed, and the person reads so. So it is where the giver's hypervisor had sent all of it, and its engine died in the
// milliseconds before it heard that it had arrived, with the baton not given: that hypervisor comes to no end. If the giver never comes back, the guest stands still
// at the taker as soon as it touches what is missing; both PCs say so, and the person turns it off there and starts it.
//
// # The failure matrix
//
// What becomes of the VM when one thing is hurt while a switch stands at one step. It is found out for real by build/matrix, which reads this
// table and fails where it isn't so; one device has the VM afterwards, and the guest's memory goes on with it. Where there is a !, the memory was
// lost with its hypervisor: the VM is stopped, its disk has all that was flushed. After a / is what the person reads to be done (api.Remedy), in
// turn: the window has a button for it, and the matrix takes the same step and sees that it works.
//
//	              preflight    incoming     pre-copy     switchover   given             received     unconfirmed        hydrating
//	taker-engine  giver/switch giver/switch giver/switch giver/switch giver/switch      giver/switch taker              taker
//	giver-engine  giver/switch giver/switch giver/switch giver/switch taker             taker        taker              taker
//	taker-qemu    -            giver/switch giver/switch giver/switch giver/switch      giver/switch taker!/start       taker!/start
//	giver-qemu    giver!/start giver!/start giver!/start giver!/start taker             taker        taker              -
//	link          giver/switch giver/switch giver/switch giver/switch taker/take        taker        taker              taker
//	taker-lost    -            -            -            -            giver/take+switch -            -                  -
//	taker-disk    giver/switch giver/switch giver/switch giver/switch taker/wait        taker/wait   taker|taker/resume taker|taker/resume
//	giver-disk    giver/resume giver/resume giver/resume giver/resume taker             taker        taker              taker
//	cancel        giver        giver        giver        giver        taker             taker        taker              taker
//
//	(nothing)  it is well: the switch is done, or was called off
//	switch     the VM runs where it was; why the switch came to nothing is read where it was asked for: press Switch to this machine again
//	start      the memory was lost, or the hypervisor ended unexpectedly, the disk is whole: press Start, where the VM is
//	resume     the guest was stopped by a full disk: free some space, press Resume
//	take       the VM runs nowhere, for the connection ended as it was given away: it goes on by itself when the two see each other again; or, if
//	           the other one is lost, press Take over (row taker-lost, where that is done)
//	wait       the VM runs nowhere until the disk has room that the sentence names: it goes on by itself then
//
// The steps: the giver was asked and hasn't offered the VM yet; the taker's hypervisor waits for memory; memory flows; the guest stands still, its disk
// is sealed, all but the devices' state has left; the giver has given the VM away and the taker hasn't heard; it has heard and hasn't written it down;
// the guest runs there and the giver doesn't know; it is over and the taker's disk lacks blocks. The engines and QEMUs are killed, nothing passes the
// link for a while, or until the person at the giver has given the taker up, a disk is filled to the last byte, and the person calls the switch off.
//
// What the person reads: why a switch failed, with the VM still on the giver (explainEnd in app/switchrun.go), where it was asked for; that the memory was
// lost, or the hypervisor ended unexpectedly, and to start the VM; where the VM runs nowhere until the link or the disk is mended, why, and that it
// goes on by itself then, or how to take it over (package app/standstill); for a guest that a full disk stopped, to free some space and let it go on.
// A switch that is called off too late comes to its end.
//
// And of a VM that is suspended for its way (package app), hurt while its guest stands still and its memory is about to be saved, while that goes to the taker with
// the disk, when the giver has given the VM away and the taker hasn't heard, when it has and hasn't written it down, and when it has loaded the memory and
// the guest is about to go on. Whatever ends there, the memory is part of the disk until the guest goes on: so it is lost only with a hypervisor that
// still had it.
//
//	              suspending   sending handed     taken restoring
//	taker-engine  taker        taker   taker      taker taker
//	giver-engine  giver/switch taker   taker      taker taker
//	taker-qemu    -            -       -          -     taker/resume
//	giver-qemu    giver!/start -       -          -     -
//	link          taker        taker   taker/take taker taker
//	cancel        giver        giver   taker      taker taker
//
//	resume     the memory is whole, and its hypervisor didn't go on with it: press Resume
//
// And of a guest that has gone ahead of its memory, while the giver has some of it, as stories of build/e2e find out:
//
//	              giving       serving
//	taker-engine  -            taker|taker!/start
//	giver-engine  giver/switch taker
//	taker-qemu    -            taker!/start
//	giver-qemu    -            taker!/start
//	link          -            taker
//	cancel        -            taker
//
// giving is the moment when the last of the devices' state has left and the VM isn't given yet. Called off while memory is missing, on either PC, the person reads that it is too late.
// The taker's engine is no story: that a later one has the rest come is tested in package qemu, but once its hypervisor ended meanwhile, and why isn't known.
//
// To test: go test ./app/switching; whole fleets with it: go test ./app/fleetsim.
package switching
