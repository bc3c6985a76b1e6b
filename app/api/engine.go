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
	// StopVM asks the guest to shut down; with force it is stopped at once, like a pulled plug.
	StopVM(ctx context.Context, vm string, force bool) error
	SuspendVM(ctx context.Context, vm string) error
	ResumeVM(ctx context.Context, vm string) error
	RemoveVM(ctx context.Context, vm string) error

	// DiskInfo tells of a disk of this device, which is named by its VM or by its directory, an absolute path.
	DiskInfo(ctx context.Context, disk string) (*DiskInfo, error)
	// ExportDisk and CheckDisk return when the work is accepted, as CreateVM does. The VM goes on meanwhile.
	ExportDisk(ctx context.Context, req ExportDisk) (*Job, error)
	CheckDisk(ctx context.Context, req CheckDisk) (*Job, error)

	// Switch returns when the switch is accepted; VM.Switch and the events tell how it goes.
	Switch(ctx context.Context, req SwitchVM) (*Switch, error)
	CancelSwitch(ctx context.Context, id string) error

	// PairStart opens a pairing window and returns with its code.
	PairStart(ctx context.Context, req PairStart) (*Pairing, error)
	// PairJoin enters another device's code and waits for the result.
	PairJoin(ctx context.Context, req PairJoin) (*Pairing, error)
	// PairCancel closes the pairing window. Without one it does nothing.
	PairCancel(ctx context.Context) error
	RemoveDevice(ctx context.Context, device string) error

	// History is the VM's chain of owners, oldest first.
	History(ctx context.Context, vm string) ([]HistoryEntry, error)
	// Shutdown asks the engine to end and returns when it has heard; running VMs go on.
	Shutdown(ctx context.Context) error
}
