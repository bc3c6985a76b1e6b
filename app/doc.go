// Package app is the engine: it plugs the disk (vmdisk), the protocols (p2p), the
// directory and the hypervisor together, owns the lifecycle of VMs and runs the switch.
//
// What it guarantees, by what it is made of:
//
//   - A VM's guest runs here only while this device holds the baton (directory), its disk is
//     active under that term (vmdisk's own journal) and its hypervisor was told to go on, in this order.
//
//   - The engine may die at any moment: the VMs go on without it, their disks' requests wait in
//     the hypervisor, and the next engine on the same data directory finds them.
//
//   - A write is answered once it is in the kernel; a flush once it is on the disk. The peers
//     never delay either, unless the person asked for it: then a flush is answered once it is on a second device's disk too (package second).
//
//   - Nobody gets a byte who isn't in the fleet. Who was removed is told so by whomever of the fleet it meets first, and if the
//     person wished that, deletes everything, whatever restarts come between.
//
//   - Working offline begins only when what is wished for is here, or the person has been told what isn't; the wish and the mode
//     survive restarts.
//
//   - A VM is taken from a device that hasn't given it away only after the person has read what may be
//     missing. Where that leaves two versions, nothing of either is overwritten, started or killed before
//     the person has chosen, and what they give up becomes a restore point, or a VM of its own, first. It is given up only when the
//     device of the version that they keep has heard of it: until then it may have been told the opposite.
//
// What it doesn't: it doesn't switch a suspended VM.
//
// How it is laid out: engine.go starts and supervises; vm.go is one VM and what is true of it;
// lifecycle.go starts and stops it; replicate.go keeps the replicas; giver.go and taker.go perform
// what the pure machine in directory/baton decides, through the durable steps of package custody.
// invite.go is what comes before that when a VM is sent away: until the other device asks, the machine knows of nothing.
// takeover.go takes VMs over and notices when that happened elsewhere; conflict.go shows both versions and
// takes the choice, which resolution.go and setaside.go carry out, restart after restart; restorepoints.go
// shows what was given up; repair.go checks what was kept; compare.go finds what two disks differ in, and courtesy.go
// lets guests go first (package courtesy says how); verify.go compares whole copies with an owner's disk and has damage repaired, by verifyjob.go for the person and by
// scrub.go in the background (package scrub says when). members.go and farewell.go follow who is in the
// fleet and part from who isn't; offline.go is the disconnected mode, offlinejob.go its preparation.
// sites.go follows who is together on a local network, for status and for whatever goes from site to site; sync.go is what a person sets about that. status.go derives what faces
// see, replicas.go how each copy stands; heralding.go has
// package herald decide what of that a person is told. The
// tests here use the real disk and directory with a scripted hypervisor; the
// whole, with real QEMU between network namespaces, is tested under build/.
package app
