// Package fleetsim lives whole fleets through bad luck. It is tests only: nothing of it is in the program.
//
// A world is two to six devices in one process, in fake time (testing/synctest), driven by one goroutine and a seeded source of
// chance, so that a seed replays. Real are the directory, the hand-off's machine, the durable steps and what the history means for a device
// (app/custody), what a giver and a taker do in a switch (app/switching), the disks with their mirrors, comparisons, pushes and hydration, sites and the push scheduler (p2p/site, app/postal), and the
// gate of flushes that wait for a second copy (app/second). Not real are the network (letters between engines are lost,
// doubled, late and out of order; streams break at any operation; cables are cut in one direction or both), the files (vmdisk/vfs loses
// and tears what was not synced, at any call), the store under the directory (a commit is durable, or isn't, or nobody knows), the
// hypervisors (models whose memory is versions of pages, written while they move; switch_test.go), and the persons, who ask, cancel, take over, choose, start and shut down, kill engines and pull plugs.
//
// What package app does between these parts, without its goroutines, is here once more, in engine_test.go, handoff_test.go, mirror_test.go,
// push_test.go, post_test.go, second_test.go, rollback_test.go and branch_test.go: whoever changes the order of things there changes it here. Not
// lived through: removing devices and wiping, working offline, a second VM, limits but a pause.
//
// Lives of their own (rot_test.go) have drives go bad, and verifications that find and repair that: none that was well may be any different then.
//
// The failure matrix of app/switching is lived through cell by cell (matrix_test.go).
//
// Some lives begin in the middle: with a choice that has crossed a hand-off, which happens by itself once in thousands of them (overtaken_test.go).
//
// After every event it is checked, against what an observer would know who sees everything:
//
//   - a whole replica is the owner's disk of its history at exactly the position that it says;
//   - what a guest was told to be durable survives; a guest that goes on finds what it wrote;
//   - one device at most owns or was active under a term; none writes under a term that it gave away; no two transfers have a term;
//   - two guests run only across a takeover, and none where the directory knows of another owner;
//   - a replica lacks no block that its owner doesn't tell of, nothing is certain while a guest writes, and what a person reads before a
//     takeover promises no more than there is;
//   - a VM that was suspended goes on as it was, on the disk that it left;
//   - a guest that comes by a teleport goes on with exactly the memory with which it stood still;
//   - a device that has heard of another owner takes no write of the one before;
//   - nothing is overwritten that isn't in the new history, on another device, or in a restore point;
//   - what the person rolls a VM back to is an earlier barrier, and what goes with that is told;
//   - a flush that waited for a second copy is on another device when it is answered.
//
// Then everything heals, and the person chooses where there is something to choose: all directories are equal and name the
// same owner, every replica gets what it has, though nothing is written, its VM starts and writes without force, every replica gets that, and whatever a guest was told to be durable is in the VM or
// in a restore point, but for what the person rolled back. Between sites the schedulers alone see to that. The ownership is checked as a register with porcupine (linear_test.go says what that is).
//
//	go test ./app/fleetsim                                        500 seeds, linearizability, sabotage, what crosses between sites, what overtakes
//	go test ./app/fleetsim -run TestFleet -fleet.seeds 200000     a night's worth
//	go test ./app/fleetsim -run TestFleet -v -fleet.seed 691      one life, told
//	go test ./app/fleetsim -run TestFailureMatrix -fleet.cells 100    each cell of app/switching's table, a hundred times
//	go test ./app/fleetsim -run TestDrivesGoBad -fleet.rotten 1000
package fleetsim
