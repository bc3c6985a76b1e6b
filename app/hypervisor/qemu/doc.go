// Package qemu runs VMs with QEMU (7.2 or later), over its QMP socket.
//
// It guarantees: a VM's process survives the engine; two devices build the same
// command line from the same [hypervisor.Config] (versioned machine, named CPU,
// fixed device addresses), which is what a teleport needs; an incoming process is
// always started paused (-S), so loaded memory never runs before somebody says so;
// the teleport is the one where the giver stops the guest itself, because then QEMU
// has no reason to let it go on by its own (QEMU resumes a guest after a failed
// switchover only if it was the one who stopped it).
//
// It doesn't decide who may run a VM, and it can't prove from the giver's side that
// the taker has loaded the memory: "completed" there means only that the bytes left.
//
// Under software emulation QEMU before 9.0 loses dirty pages of guests whose memory is a
// multiple of 256 KiB ("physmem: Fix migration dirty bitmap coherency with TCG memory
// access", 2024); [EvenMemory] is therefore applied to every VM at its creation.
//
// The tests need qemu-system-x86_64; they boot nothing, a paused process is enough. The
// end-to-end tests under build/ teleport a real guest.
package qemu
