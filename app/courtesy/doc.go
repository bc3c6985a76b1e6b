// Package courtesy lets guests go first: whoever reads much in the background on this device (first copies and returns, comparisons, verification, pushes,
// filling a copy from a file) asks it whether that would disturb a guest, of whatever VM.
//
// # The rule
//
// Load is the part of the time in which guests wait for their disks, 0 to 1, as the disks' front (vmdisk/nbd) counts: how long requests took, and what their way
// through sockets and wake-ups costs beside. Background work is measured in time, too: how long its reads took, and what hashing, encrypting and sending them
// costs. It gets the share Room/load of the time. So where guests rest, or leave enough room, there is no limit; and where they wait for nothing but their
// disks it takes 4 % of the time, be that 1 MiB a second of a drive that has to seek, or 13 MB/s of what is in memory. A guest that is held up for
// a part of each of its waits, as background work is under way for that part of the time, is slowed by load · Room/load = Room in all.
//
// Load rises within milliseconds, and falls within tens of them: what a guest does in bursts is left alone in the bursts. However busy guests are, Floor bytes
// a second may be read: so everything ends.
//
// Controller is the rule, pure; Courtesy is what the engine shares between all who ask.
//
// Not known here: what a guest does beside its disk, what other programs do, and whether two VMs' disks are on different drives: all guests and all work
// are taken together. How busy another device's guests are is that device's own affair.
//
// To test: go test ./app/courtesy ; what it comes to: build/bench.sh resync
package courtesy
