// Package crash crashes disks, by the hundred thousand, and has nothing but tests.
//
// They know of package vmdisk what everybody knows, its exported API. A workload drives an owner and a replica; the model is a plain
// map of what the guest was told. Every changing call to the file layer is a crash point; what survives there is
// all, only what was synced, or an arbitrary part of the rest (vfs.Loss). After each crash the disk is opened again, and:
//
//   - what was flushed is there, and no cell of the disk is anything but what was written to it since;
//   - a replica is, exactly, the disk at the barrier that it says, and that isn't older than what it acknowledged;
//   - a position stands for one content, for ever, also when two devices say it;
//   - a term that was given away can't be written under, and the present one can;
//   - what the owner takes for missing on the peer is at least what is missing: when it has sent that, both are equal;
//   - nothing differs from the hashes that were recorded of it;
//   - a second crash, while the first is put right, changes nothing.
//
// TestExhaustive takes all workloads of up to three operations, TestRandom longer ones by seeds (-crash.seeds, -crash.seed),
// TestSeedCrashes
// a replica that is seeded, compared and brought up to date, TestFaults makes every call fail, once or for ever, and TestKill kills real processes
// that write to a real directory (-crash.rounds).
package crash
