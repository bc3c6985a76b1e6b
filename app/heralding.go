package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/durable"
	"tagalong.org/tagalong/app/herald"
)

// heraldEvery is how often it is looked whether a person is to be told of a sync.
const heraldEvery = 2 * time.Second

// heralding is the engine's side of package herald: it shows it the copies, keeps its memory and publishes its news. Its methods may be
// called from any goroutine.
type heralding struct {
	file    string
	log     *slog.Logger
	copies  func() []herald.Copy
	publish func(api.SyncNews)

	// guarded by mu
	mu     sync.Mutex
	herald *herald.Herald
	newer  bool // a newer program wrote the file, which is left as it is
}

// openHeralding takes up what was told before the engine ended. What can't be read was never told.
func openHeralding(file string, log *slog.Logger) *heralding {
	b, err := readAtMost(file, herald.MaxMemory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("Reading what the person was told failed: some of it may be told again", "error", err)
	}
	r := &heralding{file: file, log: log}
	if r.herald, err = herald.New(b); errors.Is(err, herald.ErrVersion) {
		r.newer = true
	}
	if err != nil {
		log.Warn("What the person was told can't be read: some of it may be told again", "error", err)
	}
	return r
}

// readAtMost reads a file; of a longer one it reads limit+1 bytes.
func readAtMost(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// tick tells what is due, after it has been kept that it is told: a crash between the two loses news rather than tell them twice.
func (r *heralding) tick(now time.Time) {
	copies := r.copies()
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.herald.Tick(now, copies)
	if b := r.herald.Memory(); b != nil && !r.newer {
		if err := durable.Write(r.file, b); err != nil {
			r.log.Warn("Keeping what the person was told failed: some of it may be told again after a restart", "error", err)
		} else {
			r.herald.Kept()
		}
	}
	for _, n := range news {
		r.publish(n)
	}
}

// forget deletes what was told, with the names that are in it.
func (r *heralding) forget() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh, err := herald.New(nil)
	if err != nil {
		return err
	}
	if err := os.Remove(r.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete what the person was told: %w", err)
	}
	r.herald, r.newer = fresh, false
	return nil
}

// heraldSyncs tells the person of syncs that take long.
func (e *Engine) heraldSyncs(ctx context.Context) error {
	tick := time.NewTicker(heraldEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			e.heralding.tick(now)
		}
	}
}

// publishSync publishes news, for whoever notifies the person and for logs.
func (e *Engine) publishSync(n api.SyncNews) {
	n.Self = n.Device == e.host.ID()
	ev := api.Event{Kind: "sync." + string(n.Kind), Device: n.Device, Text: herald.Text(n), Sync: &n}
	if len(n.VMs) == 1 {
		ev.VM = n.VMs[0].ID
	}
	e.hub.publish(ev)
}

// heraldCopies are all copies of all VMs, as far as this device knows them.
func (e *Engine) heraldCopies() []herald.Copy {
	var all []herald.Copy
	for _, r := range e.records() {
		v := e.vm(r.ID)
		if v == nil {
			continue
		}
		here := v.owner()
		for _, rep := range v.replicas(r) {
			if c, ok := heraldCopy(rep); ok {
				c.VM, c.VMName, c.Mine = r.ID, r.Name, here || rep.Device == e.host.ID()
				all = append(all, c)
			}
		}
		if here && v.currentDisk() != nil {
			c := hydrationCopy(v.hydration())
			c.VM, c.VMName, c.Device, c.DeviceName, c.Mine = r.ID, r.Name, e.host.ID(), e.name, true
			all = append(all, c)
		}
	}
	return all
}

// hydrationCopy is the owner's own disk as package herald sees it; nil is a whole one.
func hydrationCopy(h *api.Hydration) herald.Copy {
	c := herald.Copy{Hydration: true, State: herald.Whole}
	if h == nil {
		return c
	}
	c.State, c.Remaining, c.Rate, c.ETA, c.Waits, c.Blocked = herald.Moving, h.Remaining, h.Rate, h.ETA, h.Waiting, h.Reads > 0
	if h.Waiting {
		c.State = herald.Unknown
	}
	for _, f := range h.From {
		if f.Needed || h.Waiting && !f.Connected {
			c.From = append(c.From, f.DeviceName)
		}
	}
	return c
}

// heraldCopy is a copy as package herald sees it; false of the owner's own.
func heraldCopy(r api.Replica) (herald.Copy, bool) {
	c := herald.Copy{
		Device: r.Device, DeviceName: r.DeviceName, Remaining: r.Remaining, Rate: r.Rate, ETA: r.ETA, Overrun: r.Overrun, Since: r.Since, Mark: r.Position,
	}
	switch {
	case r.State == api.ReplicaOwner:
		return c, false
	case r.Silent || r.State == api.ReplicaAway:
		c.State = herald.Unknown
	case r.State == api.ReplicaLive, r.State == api.ReplicaWaiting && r.Remaining == 0:
		c.State = herald.Whole // what a live one lacks is on its way
	case r.State == api.ReplicaWaiting:
		c.State = herald.Resting
	case gettingOn(r.State) && r.Remaining > 0:
		c.State = herald.Moving
	}
	if c.State == herald.Whole {
		c.Remaining = 0
	}
	return c, true
}
