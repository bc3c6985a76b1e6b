package ui

import (
	"context"
	"strings"

	"tagalong.org/tagalong/app/api"
)

func (f *fakeEngine) History(_ context.Context, vm string) ([]api.HistoryEntry, error) {
	err := f.note("history %s", vm)
	return f.history, err
}
func (f *fakeEngine) LeaveFleet(_ context.Context, req api.LeaveFleet) error {
	return f.note("leave delete=%v", req.Delete)
}
func (f *fakeEngine) Takeover(_ context.Context, vm string) (*api.Takeover, error) {
	err := f.note("takeover-preview %s", vm)
	x := f.takeover
	return &x, err
}
func (f *fakeEngine) TakeOver(_ context.Context, req api.TakeOverVM) error {
	return f.note("takeover %s %s", req.VM, req.Token)
}
func (f *fakeEngine) Resolve(_ context.Context, req api.ResolveConflict) (*api.Job, error) {
	return &api.Job{}, f.note("resolve %s %s %s %q", req.VM, req.How, req.Keep, req.Name)
}
func (f *fakeEngine) DeleteRestorePoint(_ context.Context, req api.RestorePointRef) error {
	return f.note("restore-point-delete %s %s", req.VM, req.ID)
}
func (f *fakeEngine) OpenRestorePoint(_ context.Context, req api.RestorePointRef) error {
	return f.note("restore-point-open %s %s", req.VM, req.ID)
}
func (f *fakeEngine) CloseRestorePoint(_ context.Context, req api.RestorePointRef) error {
	return f.note("restore-point-close %s %s", req.VM, req.ID)
}
func (f *fakeEngine) GoOffline(_ context.Context, req api.GoOffline) (*api.Job, error) {
	return &api.Job{}, f.note("offline [%s] copy=%v now=%v", strings.Join(req.VMs, " "), req.CopyOnly, req.Now)
}
func (f *fakeEngine) GoOnline(context.Context) error { return f.note("online") }
