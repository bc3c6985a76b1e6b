package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
)

// fakeEngine says what it is told to say and remembers what it was asked for.
type fakeEngine struct {
	mu       sync.Mutex
	status   *api.Status
	err      error // of Status and Watch, when set
	refusal  error // of everything else, when set
	asked    []string
	watchers map[chan api.Event]struct{}
	answered chan string // gets every entry of asked too
	hold     chan struct{}
	joined   *api.Pairing
	takeover api.Takeover
	history  []api.HistoryEntry
	rollback api.Rollback
	// preflight is what CheckSwitch finds; measures has it find nothing before it is cancelled.
	preflight api.Preflight
	measures  bool
}

func newFakeEngine(st *api.Status) *fakeEngine {
	return &fakeEngine{status: st, watchers: map[chan api.Event]struct{}{}, answered: make(chan string, 1000)}
}

// say changes the status and tells the watchers.
func (f *fakeEngine) say(change func(*api.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := cloneStatus(f.status)
	change(next)
	next.Seq++
	f.status = next
	for c := range f.watchers {
		select {
		case c <- api.Event{Seq: next.Seq, Kind: "test"}:
		default:
		}
	}
}

// tell tells the watchers of a sync.
func (f *fakeEngine) tell(n *api.SyncNews) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.watchers {
		c <- api.Event{Seq: f.status.Seq, Kind: "sync." + string(n.Kind), Sync: n}
	}
}

// fail makes the engine unreachable, or reachable again with nil.
func (f *fakeEngine) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	if err != nil {
		for c := range f.watchers {
			delete(f.watchers, c)
			close(c)
		}
	}
}

func (f *fakeEngine) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusal = err
}

func cloneStatus(st *api.Status) *api.Status {
	b, err := json.Marshal(st)
	if err != nil {
		panic(err)
	}
	next := &api.Status{}
	if err := json.Unmarshal(b, next); err != nil {
		panic(err)
	}
	return next
}

func (f *fakeEngine) Status(context.Context) (*api.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return cloneStatus(f.status), nil
}

func (f *fakeEngine) Watch(ctx context.Context, _ uint64) (<-chan api.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	c := make(chan api.Event, 16)
	f.watchers[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, ok := f.watchers[c]; ok {
			delete(f.watchers, c)
			close(c)
		}
	})
	return c, nil
}

func (f *fakeEngine) note(format string, args ...any) error {
	f.mu.Lock()
	s := fmt.Sprintf(format, args...)
	f.asked = append(f.asked, s)
	err, hold := f.refusal, f.hold
	f.mu.Unlock()
	f.answered <- s
	if hold != nil {
		<-hold
	}
	return err
}

func (f *fakeEngine) CreateVM(_ context.Context, r api.CreateVM) (*api.Job, error) {
	return &api.Job{ID: "j1", VMName: r.Name}, f.note("create %s %d %d %d %s", r.Name, r.CPUs, r.MemoryMiB, r.DiskBytes, r.Image)
}
func (f *fakeEngine) CancelJob(_ context.Context, id string) error {
	return f.note("cancel-job %s", id)
}
func (f *fakeEngine) DiskInfo(context.Context, string) (*api.DiskInfo, error) { return nil, nil }
func (f *fakeEngine) ExportDisk(_ context.Context, r api.ExportDisk) (*api.Job, error) {
	return &api.Job{ID: "j2", Kind: "export"}, f.note("export %s %s", r.Disk, r.File)
}
func (f *fakeEngine) VerifyVM(_ context.Context, r api.VerifyVM) (*api.Job, error) {
	return &api.Job{ID: "j5", Kind: "verify"}, f.note("verify %s", r.VM)
}

func (f *fakeEngine) AddDisk(_ context.Context, r api.AddDisk) (*api.Job, error) {
	return &api.Job{ID: "j5", Kind: "add disk"}, f.note("add-disk %s %d", r.VM, r.Bytes)
}

func (f *fakeEngine) GrowDisk(_ context.Context, r api.GrowDisk) error {
	return f.note("grow-disk %s %s %d", r.VM, r.Disk, r.Bytes)
}

func (f *fakeEngine) RemoveDisk(_ context.Context, r api.RemoveDisk) error {
	return f.note("remove-disk %s %s", r.VM, r.Disk)
}

func (f *fakeEngine) SeedVM(_ context.Context, r api.SeedVM) (*api.Job, error) {
	return &api.Job{ID: "j4", Kind: "seed"}, f.note("seed %s %s", r.VM, r.File)
}

func (f *fakeEngine) SetVM(_ context.Context, r api.SetVM) error {
	if r.Name != "" || r.CPUs != 0 || r.MemoryMiB != 0 {
		return f.note("set %s name=%q cpus=%d memory=%d", r.VM, r.Name, r.CPUs, r.MemoryMiB)
	}
	return f.note("set %s %s", r.VM, r.Sync)
}

func (f *fakeEngine) CheckDisk(_ context.Context, r api.CheckDisk) (*api.Job, error) {
	return &api.Job{ID: "j3", Kind: "check"}, f.note("check %s", r.Disk)
}
func (f *fakeEngine) StartVM(_ context.Context, vm string) error { return f.note("start %s", vm) }
func (f *fakeEngine) StopVM(_ context.Context, vm string, force bool) error {
	return f.note("stop %s %v", vm, force)
}
func (f *fakeEngine) ResetVM(_ context.Context, vm string) error { return f.note("reset %s", vm) }
func (f *fakeEngine) OpenScreen(_ context.Context, vm string) (*api.Screen, error) {
	return &api.Screen{Protocol: api.ScreenVNC, Socket: "/nowhere"}, f.note("open-screen %s", vm)
}
func (f *fakeEngine) SuspendVM(_ context.Context, vm string) error { return f.note("suspend %s", vm) }
func (f *fakeEngine) ResumeVM(_ context.Context, vm string) error  { return f.note("resume %s", vm) }
func (f *fakeEngine) RemoveVM(_ context.Context, vm string) error  { return f.note("remove %s", vm) }
func (f *fakeEngine) Switch(_ context.Context, r api.SwitchVM) (*api.Switch, error) {
	if r.Way != "" {
		return &api.Switch{ID: "s1", VM: r.VM}, f.note("switch %s to %q by %s", r.VM, r.To, r.Way)
	}
	return &api.Switch{ID: "s1", VM: r.VM}, f.note("switch %s to %q", r.VM, r.To)
}
func (f *fakeEngine) CancelSwitch(_ context.Context, id string) error {
	return f.note("cancel-switch %s", id)
}
func (f *fakeEngine) PairStart(context.Context, api.PairStart) (*api.Pairing, error) {
	err := f.note("pair-start")
	p := &api.Pairing{Code: "4821-7305", Expires: time.Now().Add(2 * time.Minute), Addrs: []string{"192.168.1.7:40123", "[fd00::7]:40123"}}
	if err == nil {
		f.say(func(st *api.Status) { st.Pairing = p })
	}
	return p, err
}
func (f *fakeEngine) PairJoin(_ context.Context, r api.PairJoin) (*api.Pairing, error) {
	err := f.note("pair-join %s %s", r.Code, r.Addr)
	return f.joined, err
}
func (f *fakeEngine) PairCancel(context.Context) error { return f.note("pair-cancel") }
func (f *fakeEngine) RemoveDevice(_ context.Context, req api.RemoveDevice) error {
	return f.note("remove-device %s wipe=%v anyway=%v", req.Device, req.Wipe, req.Anyway)
}

func (f *fakeEngine) PinDevice(_ context.Context, req api.PinDevice) error {
	return f.note("pin-device %s site=%q", req.Device, req.Site)
}
func (f *fakeEngine) CheckSwitch(ctx context.Context, req api.SwitchVM) (*api.Preflight, error) {
	err := f.note("check-switch %s to %q", req.VM, req.To)
	f.mu.Lock()
	p, measures := f.preflight, f.measures
	f.mu.Unlock()
	if measures {
		<-ctx.Done()
		f.answered <- "measuring: " + ctx.Err().Error()
		return nil, ctx.Err()
	}
	return &p, err
}
func (f *fakeEngine) SetBridge(_ context.Context, req api.SetBridge) error {
	return f.note("set-bridge %s", req.Bridge)
}
func (f *fakeEngine) Rollback(_ context.Context, vm string) (*api.Rollback, error) {
	err := f.note("rollback? %s", vm)
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.rollback
	return &r, err
}
func (f *fakeEngine) RollBack(_ context.Context, req api.RollBackVM) error {
	return f.note("roll-back %s %s", req.VM, req.Token)
}
func (f *fakeEngine) SetSync(context.Context, api.SetSync) error { return f.note("set-sync") }
func (f *fakeEngine) SyncNow(_ context.Context, req api.SyncNow) error {
	return f.note("sync-now %q", req.VM)
}
func (f *fakeEngine) PauseSync(_ context.Context, req api.PauseSync) error {
	return f.note("pause-sync %d", req.Seconds)
}
func (f *fakeEngine) ResumeSync(context.Context) error { return f.note("resume-sync") }
func (f *fakeEngine) Shutdown(context.Context) error   { return f.note("shutdown") }

var _ api.Engine = (*fakeEngine)(nil)

// requests is what the engine was asked so far.
func (f *fakeEngine) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.asked...)
}
