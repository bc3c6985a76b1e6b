package api

import "context"

// Engine is what the server serves and the client offers. VMs and devices are named by ID or by
// name. All methods may be called concurrently. A failure that carries an *Error reaches the
// person as it is; any other becomes CodeInternal with the failure as its cause.
type Engine interface {
	// Status is a complete snapshot.
	Status(ctx context.Context) (*Status, error)
	// Watch delivers the events whose Seq is greater than after and that are still kept, then the
	// new ones, in order. The channel closes when ctx ends or the source does. An engine never
	// waits for its reader: it closes the channel of one that falls too far behind.
	Watch(ctx context.Context, after uint64) (<-chan Event, error)

	// CreateVM returns when the work is accepted. Job.VM is the new VM's ID; Status.Jobs and the
	// events tell how it goes.
	CreateVM(ctx context.Context, req CreateVM) (*Job, error)
	CancelJob(ctx context.Context, id string) error

	StartVM(ctx context.Context, vm string) error
	// StopVM asks the guest to shut down and waits until it has, or fails with CodeUnanswered when it takes too long; it goes on then. With
	// force it is stopped at once, like a pulled plug, also while somebody waits.
	StopVM(ctx context.Context, vm string, force bool) error
	// ResetVM starts a running VM anew at once, like a PC's reset button: what its guest hadn't written is lost.
	ResetVM(ctx context.Context, vm string) error
	// OpenScreen issues a ticket to the screen of a VM that runs on this device. Each call makes the one before worthless.
	OpenScreen(ctx context.Context, vm string) (*Screen, error)
	SuspendVM(ctx context.Context, vm string) error
	ResumeVM(ctx context.Context, vm string) error
	RemoveVM(ctx context.Context, vm string) error
	// AddDisk returns when the work is accepted, as CreateVM does. GrowDisk and RemoveDisk are done when they return. All are for VMs that are
	// stopped, and on this device.
	AddDisk(ctx context.Context, req AddDisk) (*Job, error)
	GrowDisk(ctx context.Context, req GrowDisk) error
	RemoveDisk(ctx context.Context, req RemoveDisk) error
	// SetVM changes settings, on the VM's owner; another device asks the owner, if that is connected. They count when it returns, also of a
	// VM that runs, but for its memory and CPUs, which can only be changed while it is stopped.
	SetVM(ctx context.Context, req SetVM) error

	// DiskInfo tells of a disk of this device, which is named by its VM or by its directory, an absolute path.
	DiskInfo(ctx context.Context, disk string) (*DiskInfo, error)
	// ExportDisk and CheckDisk return when the work is accepted, as CreateVM does. The VM goes on meanwhile.
	ExportDisk(ctx context.Context, req ExportDisk) (*Job, error)
	CheckDisk(ctx context.Context, req CheckDisk) (*Job, error)
	// SeedVM does too. The copy is no replica before its owner has compared it and sent what differs.
	SeedVM(ctx context.Context, req SeedVM) (*Job, error)
	// VerifyVM, on the VM's owner, compares its disk with all copies, those at other sites where they stand, and repairs what is proven to be damaged. It returns
	// as they do.
	VerifyVM(ctx context.Context, req VerifyVM) (*Job, error)

	// Switch returns when the switch is accepted; VM.Switch and the events tell how it goes.
	Switch(ctx context.Context, req SwitchVM) (*Switch, error)
	CancelSwitch(ctx context.Context, id string) error
	// CheckSwitch says what stands in a switch's way, and which way is left. Nothing moves.
	CheckSwitch(ctx context.Context, req SwitchVM) (*Preflight, error)

	// PairStart opens a pairing window and returns with its code.
	PairStart(ctx context.Context, req PairStart) (*Pairing, error)
	// PairJoin enters another device's code and waits for the result.
	PairJoin(ctx context.Context, req PairJoin) (*Pairing, error)
	// PairCancel closes the pairing window. Without one it does nothing.
	PairCancel(ctx context.Context) error
	RemoveDevice(ctx context.Context, req RemoveDevice) error
	// PinDevice says in which site a device is, whatever is seen. All devices hear of it.
	PinDevice(ctx context.Context, req PinDevice) error
	// SetBridge says which network bridge of this device VMs are on. It counts from a VM's next start here on.
	SetBridge(ctx context.Context, req SetBridge) error
	// LeaveFleet tells the others, forgets them, and is a fleet of one again.
	LeaveFleet(ctx context.Context, req LeaveFleet) error

	// Takeover is what a person must read before TakeOver, which makes this device the owner without the present one's consent.
	Takeover(ctx context.Context, vm string) (*Takeover, error)
	TakeOver(ctx context.Context, req TakeOverVM) error
	// Rollback is what a person must read before RollBack, which lets a VM of this device go on with what the device had before a switch
	// whose rest can't be had.
	Rollback(ctx context.Context, vm string) (*Rollback, error)
	RollBack(ctx context.Context, req RollBackVM) error
	// Resolve carries out the choice between the sides of a conflict. It returns when the choice is durable; the job tells how it goes.
	Resolve(ctx context.Context, req ResolveConflict) (*Job, error)
	DeleteRestorePoint(ctx context.Context, req RestorePointRef) error
	// OpenRestorePoint shows a restore point to the VM as a read-only disk, CloseRestorePoint takes it away.
	OpenRestorePoint(ctx context.Context, req RestorePointRef) error
	CloseRestorePoint(ctx context.Context, req RestorePointRef) error

	// GoOffline begins the preparation; GoOnline ends the mode, or cancels a preparation.
	GoOffline(ctx context.Context, req GoOffline) (*Job, error)
	GoOnline(ctx context.Context) error

	// SetSync, SyncNow, PauseSync and ResumeSync are about what goes to other sites and comes from there; Status.Sync shows how things are.
	SetSync(ctx context.Context, req SetSync) error
	SyncNow(ctx context.Context, req SyncNow) error
	PauseSync(ctx context.Context, req PauseSync) error
	ResumeSync(ctx context.Context) error

	// History is the VM's chain of owners, oldest first.
	History(ctx context.Context, vm string) ([]HistoryEntry, error)
	// Shutdown asks the engine to end and returns when it has heard; running VMs go on.
	Shutdown(ctx context.Context) error
}
