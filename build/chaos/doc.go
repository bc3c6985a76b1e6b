// Package chaos lets everything go wrong at once, for real: PCs at two sites as network namespaces with a shaped link between them
// (package lab), engines as processes, a test guest under load in real QEMU; and then, by a seeded plan, engines and hypervisors that
// are killed, cables pulled, the provider down, lids closed, disks full, switches and takeovers. In the end all is let heal, and
// judged.
//
// What a run without an error guarantees, by witnesses that don't know Tagalong: no record that the guest was told durable was missing
// at any of its starts (except what a takeover had said may be lost), the guest's own checks of disk, memory and time were good,
// no tick of its clock came twice and no two guests of one history ran at once; a copy that was looked at in the middle was a whole
// file system with all that its position promises; in the end all copies were the same byte for byte, Tagalong's own comparison said
// so of those at the owner's site, and the guest booted from each and found itself whole. An owner that wrote more than who took over had was never dropped
// without a conflict. What it doesn't: a kill isn't a power cut, since the kernel goes on (package vmdisk/crash has those); a plan is
// repeated by its seed, but not the processes' timing.
//
// It needs root, QEMU and the test guest's image, as build/e2e does. Test it with: go test ./build/chaos/ (-chaos.for 1h for long,
// -chaos.seed 0 for another plan each time).
package chaos
