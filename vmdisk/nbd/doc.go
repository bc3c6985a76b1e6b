// Package nbd serves disks over the Network Block Device protocol (fixed newstyle), which is how QEMU
// reaches a VM's disk.
//
// # What it guarantees
//
//   - A request is answered only after the [Backend] has finished it. A flush is answered only after
//     Backend.Flush, called after every write answered before it, on whichever connection, has returned.
//   - Requests run in parallel, but a request that overlaps an earlier, unfinished write, trim or zeroing
//     of the same Backend starts only after that one has ended. This holds across connections, so a
//     request that a client sends again after a lost connection never overtakes, and is never overtaken
//     by, the first try.
//   - Passing trouble is never answered with an error. A Backend says [ErrHangUp], the connection is
//     closed without an answer, and a client with a reconnect delay (QEMU) connects and sends again.
//   - Whatever a client sends, it gets the protocol's error or a hang-up. Lengths are checked before
//     memory is set aside, and the memory held for requests is bounded for each connection and in total.
//
// # What it does not
//
//   - It keeps no data: a Backend that answers before the kernel has the data loses it with the process.
//   - No TLS and no authentication: the socket's directory is the guard, see [Listen].
//   - No extended headers (64-bit lengths), no fast zeroing, no resizing, no meta context other than
//     base:allocation.
//   - A Backend call cannot be interrupted from here: [Server.Serve] returns once all of them have.
//
// # What makes it fast, and what limits it
//
// Requests that a [PromptBackend] calls quick run where they are read, without a copy, an allocation or a thread
// switch; the answers of a batch leave in one write; the socket is waited for by its own thread. What is left is the
// system's: over nine tenths of the processor time are reads and writes of the socket and the file. Requests of 64 KiB and more are
// bound by the two copies through the socket, single ones by the time it takes to wake the client. `build/bench.sh nbd` measures
// it, `go test -bench Requests -benchmem` shows the allocations.
//
// # How to test it
//
// `go test -race` needs qemu-utils, libnbd-bin and fio: the server is held against nbdinfo, nbdcopy,
// qemu-io, qemu-img and fio, and the parser against FuzzNegotiation and FuzzTransmission.
package nbd
