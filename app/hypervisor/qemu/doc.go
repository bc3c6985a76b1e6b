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
// What the guest sees is one of a few generations of virtual hardware (Config.Hardware), none of which is ever changed: golden
// files in testdata hold them. What only this device is concerned with, the guest doesn't see, and it may be another at the other
// device: the accelerator, SPICE or VNC for the screen, where the UEFI's program lies, and whether the network is QEMU's own or a
// bridge's (for which offloading is left out: QEMU's own has none, and a guest that was promised it couldn't move there).
//
// An engine may be replaced by a newer one under a running VM. What the older one's QEMU was started with is therefore a contract, and
// may only be added to (testdata/older keeps command lines of earlier engines, which are never changed and with which everything here must
// still work):
//   - the run directory of a VM is Config.Dir. In it "qemu.lock" is locked by the process while it lives (flock; not by one that an engine of before
//     the lock has started), "qemu.pid" has the process ID once it says that, and the command line of that process has
//     the path of "qmp.sock", by which it is known again; "console.sock", "screen.sock", "agent.sock" and "memory.sock" are what they are
//     called, "urgent.in" and "urgent.out" the pipes of a session in which a process that took memory in hears urgent commands, "disk.sock" and "v-ID.sock" the engine's own, to which QEMU connects again for a day. One that isn't there is a thing that the VM
//     was made without: it is looked for, not derived from a version.
//   - the block nodes "disk0", "drive-ID", "vars0" and, of restore points, "node-ID"; the devices "vd0", "vd-ID" and "disk-ID"; the root ports
//     "rp0" to "rp3" of a q35; the default export's name is empty.
//   - how the screen is shown, and whether it asks for a password, is asked of QEMU itself.
//   - a process that is found may be in the middle of a teleport: Settle ends that, whoever began it.
//
// What was tried with real QEMU 7.2 (software emulation), and is relied on:
//   - The UEFI's variables are a flash chip on an NBD disk. An incoming process reads all of it once when it starts, from a copy that
//     may be stale and has to answer; the content comes with the memory. It is written, as a whole, right after the guest goes
//     on, and never before: after the disk was activated. A variable that was set before a switch is there after a reboot behind it.
//     During its first boot the firmware writes 16,000 times 512 bytes; each stops the guest's CPU until it is answered.
//   - i440fx with SeaBIOS and q35 with OVMF, 1, 4 and 8 CPUs, three disks, virtio-vga, both ports, sound, balloon and user network
//     move from SPICE to VNC and back. The chardev qemu-vdagent can't be moved; spicevmc and null can, also to each other.
//   - With free-page-reporting, memory that the guest has freed leaves as zeros: 102 instead of 199 MB of a guest that had
//     filled and freed 100 MB.
//   - Only disks on a root port can be added to a running q35, so it has four.
//   - A guest may go ahead of its memory (postcopy-ram): pause-before-switchover holds it before its devices' state leaves, -S has it wait at the taker, where it is
//     "paused" once it could run. Each side's stream may end then: the giver's QEMU becomes postcopy-paused, also that of an engine that died; migrate-recover (out of
//     band: QEMU's main loop may wait for a page) and migrate with resume go on, as often as it takes. One that has sent all, and
//     lost its stream before the taker's word for that, never pauses. One that has paused can be taken up again by the engine itself, which answers that every page
//     has arrived: then it completes, and the guest goes on where it was (CallBack). migrate_cancel hangs from migrate-continue on, and leaves the guest where cont is refused; told
//     on the return path that all has arrived, after it has sent all, QEMU "completes", and its guest can go on.
//   - A QEMU whose main loop waits for a page accepts a new client on its socket, and greets it, but the answer that makes it take commands, urgent ones too, comes from
//     the main loop. A monitor on a pair of named pipes is greeted once: its session goes on with whoever opens the pipes next.
//   - A network card on a bridge (tap) is QEMU's by its file alone, and gone with the process.
//
// Under software emulation QEMU before 9.0 loses dirty pages of guests whose memory is a
// multiple of 256 KiB ("physmem: Fix migration dirty bitmap coherency with TCG memory
// access", 2024); [EvenMemory] is therefore applied to every VM at its creation.
//
// The tests need qemu-system-x86_64 and an UEFI (Debian's ovmf); they boot nothing, a paused process is enough. The
// end-to-end tests under build/ teleport a real guest.
package qemu
