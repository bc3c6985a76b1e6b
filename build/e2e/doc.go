// Package e2e holds the end-to-end tests: the built binary, real QEMU, real mDNS between network
// namespaces, a guest that checks itself. It has no code of its own; package story plays.
//
// What passing guarantees: the path that the demo shows works from a cold build, with an engine killed
// on either side while the disk is mirrored, a switch cancelled, a cable cut in the middle of one, and a
// VM suspended and resumed; nothing is lost in any of them. And three PCs go through what happens when one is out of reach: its VM
// is taken over, two versions of it meet and the person chooses (one, the other, both), it goes on a journey, a PC is stolen,
// removed and wiped. A VM that waits for a second copy stands still without one, is suspended and switched all the same, and what it was told
// survives its owner. And one goes on at another site, behind a home's uplink, on a copy that lacks what was written lately: its guest waits, without an
// error, while nobody has the rest, and goes on with whoever has it; or its person rolls it back. One that writes memory faster than that uplink carries it
// stays where it is, unhurt and explained, until it may stand still for long enough; or it comes suspended, the line cut and an engine killed on the way.
// A VM with an UEFI moves while its guest writes three disks, which all have what was durable.
// What it doesn't: it tells nothing about
// real networks' speed, or of KVM; what happens when everything goes wrong at once is package chaos's.
//
// Stories run beside each other, each on hosts of its own; one that measures times doesn't call t.Parallel, and is alone.
//
// It needs root, and the tools that build/deps.sh installs: it fails where they are missing.
// Test with: go test ./build/e2e/
package e2e
