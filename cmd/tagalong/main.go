// Command tagalong is all of Tagalong in one binary: the tray (no arguments), the engine
// (tagalong engine), and the command line (every other verb).
//
// The command line is one more client of the local API: it keeps no state, asks the engine for a
// snapshot, prints it or acts on it. It guarantees that every failure is one sentence and a next
// step on standard error and an exit code that depends only on the kind of failure, that --json
// prints the types of package api as they are, and that names which come from other devices can't
// steer the terminal. The layout of what is printed for people is not promised to stay.
//
// Built with the tag nogui it needs no cgo and has no tray. Test it with go test -tags nogui: the
// scripts in testdata run the real commands against a fake engine on a real socket.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
