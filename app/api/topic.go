package api

// Topic names what an error tells of, for a face that has words of its own for it: in the person's language, and with its buttons where Next names
// commands. Topics are part of the API: never reused, never renamed. A face that doesn't know one shows the sentence.
type Topic string

// Why a switch came to nothing. The switch has the names of the VM and of both devices.
const (
	TopicSwitchBusy        Topic = "switch-busy"         // another hand-off of the VM is under way
	TopicSwitchNotOwner    Topic = "switch-not-owner"    // the device that was asked doesn't have the VM any more
	TopicSwitchTimeout     Topic = "switch-timeout"      // nothing moved for too long
	TopicSwitchLinkLost    Topic = "switch-link-lost"    // the connection was lost
	TopicSwitchDied        Topic = "switch-died"         // a hypervisor ended
	TopicSwitchRestarted   Topic = "switch-restarted"    // an engine was restarted
	TopicSwitchOldMemory   Topic = "switch-old-memory"   // an earlier version's saved memory can't come along
	TopicSwitchNotWhole    Topic = "switch-not-whole"    // not all of the VM is where it would leave
	TopicSwitchLeaving     Topic = "switch-leaving"      // its device is getting ready to take it along
	TopicSwitchNotReady    Topic = "switch-not-ready"    // it neither runs nor is it stopped
	TopicSwitchSeesPoint   Topic = "switch-sees-point"   // it sees a restore point as a disk
	TopicSwitchNoPostCopy  Topic = "switch-no-postcopy"  // the other device can't let it go ahead of its memory
	TopicSwitchOusted      Topic = "switch-ousted"       // another device has taken it over
	TopicSwitchNotCompared Topic = "switch-not-compared" // what the other device has isn't known yet
	TopicSwitchCameBack    Topic = "switch-came-back"    // the other device couldn't go on with it
	TopicSwitchNotStored   Topic = "switch-not-stored"   // its device couldn't write down that it hands it over
	TopicSwitchNoRoom      Topic = "switch-no-room"      // the other device's disk is full
	TopicSwitchMemory      Topic = "switch-memory"       // the other device has too little free memory
	TopicSwitchTooLarge    Topic = "switch-too-large"    // the other device has too little memory altogether
	TopicSwitchHypervisor  Topic = "switch-hypervisor"   // the other device has no usable QEMU
	TopicSwitchAccelerator Topic = "switch-accelerator"  // one of the two emulates in software
	TopicSwitchCPU         Topic = "switch-cpu"          // the other device's processor lacks something
	TopicSwitchUnfit       Topic = "switch-unfit"        // the other device can't run it for another reason
	TopicSwitchFailed      Topic = "switch-failed"       // something else; the log has it
)

// What is wrong with a VM. Other in the error is the other device's name, where there is one.
const (
	TopicFell         Topic = "vm-fell"          // its hypervisor ended by itself
	TopicMemoryLost   Topic = "vm-memory-lost"   // its memory was lost in a switch
	TopicTrailingLost Topic = "vm-trailing-lost" // what was still at the other device of its memory is lost
	TopicUnwritable   Topic = "vm-unwritable"    // it stands still as its disk can't be written
	TopicStandsStill  Topic = "vm-stands-still"  // it was to go on, and didn't
	TopicNoRoom       Topic = "hand-over-room"   // this device's disk is too full to hand it over
	TopicGivenAway    Topic = "hand-over-given"  // it was given, and the other device can't be reached
	TopicTaking       Topic = "hand-over-taking" // it is loaded here, and the other device can't be reached
	TopicWaits        Topic = "hand-over-waits"  // the other device doesn't go on
	TopicUnwritten    Topic = "hand-over-stuck"  // it can't be written down here
	TopicServesLost   Topic = "serves-lost"      // some of its memory is here, and the other device can't be reached
	TopicServes       Topic = "serves"           // some of its memory is here
)
