package api

// Remedy is the one thing that mends what an error tells of. Remedies are part of the API: never reused, never renamed.
type Remedy string

// The remedies. Without one it takes more than a button, or nothing is to be done.
const (
	RemedySwitch Remedy = "switch" // press Switch to this machine again: API.Switch
	RemedyStart  Remedy = "start"  // start the VM, on the device that says so: API.StartVM
	RemedyResume Remedy = "resume" // let its guest go on, on the device that says so: API.ResumeVM
	RemedyTake   Remedy = "take"   // wait, and if the other device is lost take the VM over: API.TakeOver
	RemedyWait   Remedy = "wait"   // mend what the sentence names; everything goes on by itself then
)
