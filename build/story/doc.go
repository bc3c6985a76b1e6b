// Package story plays the whole of Tagalong for real: PCs as network namespaces on one bridge, an
// engine in each, pairing, discovery, a test guest under real QEMU, its disk mirrored, switches
// there and back. The demo tells it to a person, the end-to-end tests demand its outcome.
//
// What it guarantees: a story that ends without an error has the word of three witnesses who can't
// know of each other: the guest checked its own disk and memory, the ticks of its clock arrived
// without one missing or doubled, and both devices' disks are the same byte for byte.
// What it doesn't: it drives the engines only through the command line and the local API, so it
// proves nothing about what lies beneath beyond that.
//
// It needs root (or a user namespace), QEMU and the test guest's image; see build/demo.sh. Test it
// with: go test ./build/e2e/
package story
