// Package surroundings tells what this device runs on and how it is connected: what the choice of a site's postmaster goes by, and whether
// pushes to other sites may go now (package allowance).
//
// What it guarantees: it says "unknown" (the zero value) rather than guess. On Linux it reads sysfs, and asks NetworkManager over the system's bus
// whether the connection is metered; on other systems, which have no way
// to ask that is as small, all of it is unknown but since when the program runs. Nothing is sent and no name is looked up.
//
// What it doesn't: a kernel may take long to say how full a battery is (an embedded controller is asked), so Look belongs into a goroutine
// that nobody waits for. What a device runs on inside of a virtual machine is what that shows it.
//
// How to test it: the readers take a file system, so that the tests bring laptops, desktops and mice with batteries of their own; what asks
// over the bus meets a bus of the tests' (they need dbus-daemon) with a network manager that they play.
package surroundings
