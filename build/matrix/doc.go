// Package matrix hurts a switch at every step, for real: two PCs as network namespaces (package lab), engines as processes, a test guest that
// writes records and dirties memory in real QEMU; and in each cell of the failure matrix one thing is killed, cut, filled up or called off
// while the switch stands at one step. The engines are built with the tag tagalonghold, so that they stand there until told
// otherwise (app/holdpoint): the last steps of a switch pass in milliseconds.
//
// What a run without an error guarantees, by witnesses that don't know Tagalong: after each cell one guest ran, or none and the person read why,
// with a next step (api.Remedy) that was taken and worked; no record that the guest was told durable was missing; the guest's own checks of disk, memory and
// clock were good; no tick of its clock came twice, and at no time did both QEMUs say that their guest ran (a second monitor of each is asked
// all the while); Tagalong's own comparison found the copies the same after each cell, and a plain one byte for byte in the end, and each copy
// boots. Who ran the VM afterwards, whether its memory was kept, and what the person was told to do, is what the table of app/switching says. In the
// row of switches after the cells, half of the kills are at a step, and half at any moment of the time that a switch takes, chosen without looking. What
// it doesn't: a kill isn't a power cut; of each cell one moment is tried, and the fleet simulator (app/fleetsim) tries the others, but for a VM that is
// suspended for its way, which has cells of its own here and isn't in the simulator.
//
// It needs root, QEMU and the test guest's image, as build/e2e does. Test it with: go test ./build/matrix/ (-matrix.all for every cell,
// -matrix.cell giver-engine/given for one, -matrix.carried for how many of a VM that is suspended for its way, -matrix.sample 0 -matrix.switches 100 for so many switches in a row, in one of four of which an engine is
// killed, or of -matrix.kills). A run that fails prints how to begin it again with the same dice.
package matrix
