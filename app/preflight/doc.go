// Package preflight finds out, before anything moves, what stands in the way of a VM on its way from one device to another, says so
// to the person, and names the best way that is left. It also chooses the processor that a new VM is given, so that it can run on
// all devices of the fleet.
//
// It knows what each device says of itself ([Device]), which travels in the device's record in the directory and, as it is at that
// moment, with the taker's first word of a switch. What a device doesn't say stands in nobody's way: an older program says nothing,
// and a hypervisor that can't take a memory in refuses it by itself, the guest going on where it is.
//
// It guarantees: findings in a fixed order, each with a sentence and, if something can be done, with what to do; what it reads of
// other devices is bounded and sane; it is pure and holds no state. It doesn't guarantee that a switch without findings works.
//
// Test it with: go test ./app/preflight
package preflight
