package disktool

import (
	"errors"
	"log/slog"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/volumes"
	"tagalong.org/tagalong/vmdisk"
)

// Info opens the disk in dir, which puts right what a crash left behind, and says what there is to know.
func Info(dir string, log *slog.Logger) (*api.DiskInfo, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, Explain(dir, err)
	}
	disk, err := open(abs, 0, log)
	if err != nil {
		return nil, err
	}
	table, err := tableOf(abs, disk.Size())
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	info := Describe(abs, disk.Info(), table)
	if err := disk.Close(); err != nil {
		return nil, Explain(abs, err)
	}
	return &info, nil
}

// Describe puts what a disk says of itself into the API's words.
func Describe(dir string, i vmdisk.Info, table volumes.Table) api.DiskInfo {
	d := api.DiskInfo{
		Volumes: table.Volumes, Dir: dir, ID: i.ID.String(), Size: i.Size, Allocated: i.Allocated, Role: role(i), Active: i.Active,
		Term: i.Term, Given: i.Given, Position: api.Position(i.Position), Unflushed: i.Unflushed, Peers: []api.DiskPeer{},
		Stale: i.Stale, Before: api.Position(i.Before), Formats: vmdisk.Formats(), NeedsCheck: i.NeedsCheck,
	}
	if i.Err != nil {
		d.Problem = api.AsError(Explain(dir, i.Err))
	}
	for _, p := range i.Peers {
		d.Peers = append(d.Peers, api.DiskPeer{Device: p.Peer, State: p.Phase.String(), Lacks: p.Remaining, Position: api.Position(p.Acked)})
	}
	return d
}

func role(i vmdisk.Info) api.DiskRole {
	switch {
	case !i.Complete:
		return api.DiskIncomplete
	case i.Owned:
		return api.DiskOwner
	case i.Term == 0:
		return api.DiskNew
	default:
		return api.DiskReplica
	}
}
