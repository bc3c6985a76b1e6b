package disktool

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/disknbd"
	"tagalong.org/tagalong/app/volumes/window"
	"tagalong.org/tagalong/vmdisk"
	"tagalong.org/tagalong/vmdisk/nbd"
)

// ServeOptions says what Serve serves, and where.
type ServeOptions struct {
	// Dir is the disk's directory, Socket where to listen.
	Dir, Socket string
	// Export is the name clients ask for; "" is the default export, which is always there.
	Export string
	// Volume is which of the disks, by ID or name; "" is the first.
	Volume string
	// ReadOnly refuses writes even where they would be allowed.
	ReadOnly bool
	// Reserve is how many bytes of the file system stay free.
	Reserve int64
	Log     *slog.Logger
}

// Serve serves one disk over NBD until ctx ends; then it makes everything durable and returns nil. ready is called when
// clients can connect.
//
// The disk is served for writing only if this device may write it: under its present term if it has that and hasn't given it
// away, under term 1 if the disk is new. Otherwise it is served read-only, and api.ServedDisk.Why says why.
func Serve(ctx context.Context, o ServeOptions, ready func(api.ServedDisk)) (err error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Explain(o.Dir, err)
	}
	socket, err := filepath.Abs(o.Socket)
	if err != nil {
		return Explain(o.Dir, err)
	}
	disk, err := open(dir, o.Reserve, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = Explain(dir, errors.Join(err, disk.Close())) }()
	info := disk.Info()
	switch {
	case !info.Complete:
		return vmdisk.ErrIncomplete
	case info.Stale > 0:
		return vmdisk.ErrHydrating
	case info.Err != nil:
		return info.Err
	}
	table, err := tableOf(dir, disk.Size())
	if err != nil {
		return err
	}
	v, err := volumeOf(table, o.Volume)
	if err != nil {
		return err
	}
	guest := guestOf(dir)
	guest.suspended = guest.suspended || suspendedIn(disk, table)
	shown := window.New(disk, v)
	s := api.ServedDisk{Dir: dir, ID: info.ID.String(), Size: shown.Size(), Socket: socket, Export: o.Export, URI: uri(socket, o.Export)}
	if s.Why = whyReadOnly(info, guest, o.ReadOnly); s.Why == "" {
		if err := disk.Activate(max(info.Term, 1)); err != nil {
			return err
		}
	}
	l, err := nbd.Listen(socket)
	if err != nil {
		return err
	}
	server := &nbd.Server{Backend: disknbd.Backend{Disk: shown}, Name: o.Export, Log: o.Log}
	if s.ReadOnly = s.Why != ""; s.ReadOnly {
		server.Backend = disknbd.ReadOnly{Reader: shown}
	}
	info = disk.Info()
	s.Term, s.Position = info.Term, api.Position(info.Position)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	ready(s)
	return <-served
}

// whyReadOnly is the reason in a few words, or "" if the disk may be written.
func whyReadOnly(info vmdisk.Info, guest guestState, asked bool) string {
	switch fresh := info.Term == 0; {
	case asked:
		return "you asked for it"
	case !fresh && !info.Owned && info.Given >= info.Term:
		return "this device gave the disk away: another one owns it"
	case !fresh && !info.Owned:
		return "this is a replica: another device owns the disk"
	case guest.running:
		return "the VM still runs on it: stop the VM first"
	case guest.suspended:
		return "the VM is suspended, and its saved memory fits only to the disk as it is now"
	default:
		return ""
	}
}

// uri is how NBD clients name an export behind a Unix socket. What a URI needn't escape stays readable.
func uri(socket, export string) string {
	escape := strings.NewReplacer("%2F", "/", "+", "%20").Replace
	return "nbd+unix:///" + url.PathEscape(export) + "?socket=" + escape(url.QueryEscape(socket))
}
