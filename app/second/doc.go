// Package second has a guest's flushes wait until another device has what they made durable here: `sync = "two"`.
//
// A [Gate] stands around a VM's flushes (and writes with FUA), between its NBD server and its disk. With two set, a flush is answered when
// this device's disk has made it durable and some peer has acknowledged the position that the disk had then. It guarantees:
//
//   - A flush that was answered while the guest's processors ran is durable on two devices, unless one of the reasons of [Why] held: those
//     are shown in status as long as they do, so that nobody believes in a copy that isn't there.
//   - A guest never sees an error. After Grace a flush is refused with ENOSPC, which makes the hypervisor stop the guest and keep the request;
//     it is sent again when the guest goes on, and waits again.
//   - Whoever stops the guest's processors (Stop) isn't held up for longer than StopGrace. What is flushed while they stand
//     still is answered at once: no guest sees the answer before it goes on.
//   - A flush never outlives its export, and hangs up, as all passing trouble does, when the disk turns inactive.
//
// It decides nothing about guests: who owns the Gate has the guest go on when Refused and Satisfied say so.
//
// To test: go test -race ./app/second (in fake time).
package second
