// Package limits keeps what a person set about pushes to other sites, their pause and their wish to have it now, looks at what this device runs on,
// and tells whoever pushes or receives a push whether that may go on now (package allowance decides) and paces it.
//
// The engine's push scheduler asks Allowance before each push, and again whenever Changed says so, and ends what may not go on. What it sends to or
// receives from another site waits on Pace. A person's wish (Ask) opens all VMs, or one, for one round each: the scheduler
// says Served when that is over, or the wish lapses.
//
// What is set and the pause are in one file, replaced as a whole. If it can't be read nothing may be pushed, rather than anything that the
// person may have forbidden; Reset puts it aside. A wish is not kept: it is for now.
//
// To test: go test -race ./app/limits
package limits
