package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/surroundings"
	"tagalong.org/tagalong/p2p/site"
	"tagalong.org/tagalong/p2p/told"
)

// The engine's side of package site: it feeds the node with what the network and the records say, publishes what the node says in
// this device's own record, and keeps the view.

const (
	// siteTick is how often the facts are looked at, beside every change of the records and the connections.
	siteTick = time.Second
	// lookAroundEvery is how often what this device runs on is looked at.
	lookAroundEvery = 10 * time.Second
	// announceAgain is how long a record that couldn't be written waits for the next try.
	announceAgain = 10 * time.Second
	// goodbyeTimeout is how long the engine's end waits for somebody of its site to have read that it goes.
	goodbyeTimeout = time.Second
)

// sites is what this device knows of the fleet's sites.
type sites struct {
	mu    sync.Mutex
	node  *site.Node // nil: this device's record was written by a newer program, and is left as it is
	clock awakeClock
	facts site.Facts
	gone  bool // goodbye was said
	view  site.View
	raw   []byte // what this device's record says, or is to say
	tried time.Time
	read  map[string]readSite // by device
}

// readSite is the last record of a device that was read.
type readSite struct {
	raw []byte
	rec site.Record
}

// said is what is to stand in this device's record.
func (s *sites) said() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.raw)
}

// openSites takes up what the person has said before.
func (e *Engine) openSites() {
	s := &e.sites
	s.read = map[string]readSite{}
	s.facts.Up = time.Now()
	for _, d := range e.dir.Devices() {
		if d.ID != e.host.ID() {
			continue
		}
		before, err := site.Decode(d.Site)
		if errors.Is(err, site.ErrVersion) {
			// Writing over it would lose what the person told the newer program.
			e.log.Warn("A newer program has written where this device is: sites are not worked out here", "error", err)
			s.raw = d.Site
			return
		}
		if err != nil {
			e.log.Error("Reading where this device is failed: pins that were set here are lost", "error", err)
		}
		s.node = site.New(e.host.ID(), before)
		return
	}
	s.node = site.New(e.host.ID(), site.Record{})
}

// siteRecords are what all devices of the fleet say. The caller holds e.sites.mu.
func (e *Engine) siteRecords() map[string]site.Record {
	s := &e.sites
	records := map[string]site.Record{e.host.ID(): {}}
	for _, m := range e.dir.Members() {
		records[m.ID] = site.Record{}
	}
	for _, d := range e.dir.Devices() {
		last, known := s.read[d.ID]
		if !known || !bytes.Equal(last.raw, d.Site) {
			rec, err := site.Decode(d.Site)
			if err != nil {
				// It counts as one that says nothing: a site of its own.
				e.log.Info("What a device says of where it is can't be read", "device", d.ID, "error", err)
			}
			last = readSite{d.Site, rec}
			s.read[d.ID] = last
		}
		records[d.ID] = last.rec
	}
	for id := range s.read {
		if _, in := records[id]; !in {
			delete(s.read, id)
		}
	}
	return records
}

// tickSites works the view out anew and returns whether this device's record has to be written.
func (e *Engine) tickSites() (due bool) {
	var peers []site.Peer
	for _, p := range e.host.Peers() {
		peers = append(peers, site.Peer{ID: p.ID, Connected: p.Connected, OnLink: p.OnLink, Trip: p.Trip})
	}
	_, away := e.offlineSince()
	s := &e.sites
	s.mu.Lock()
	defer s.mu.Unlock()
	records := e.siteRecords()
	was := s.view
	if s.node == nil {
		s.view = site.View{Sites: site.Sites(records), Pins: site.Pinned(records)}
		s.view.Here = s.view.At(e.host.ID())
		return false
	}
	view, rec := s.node.Tick(site.Input{
		Now: s.clock.now(), Away: away || s.gone, Facts: s.facts, Peers: peers, Records: records,
	})
	s.view = view
	e.logPostmaster(was, view)
	raw, err := rec.Encode()
	if err != nil {
		e.log.Error("Encoding where this device is failed", "error", err)
		return false
	}
	s.raw = raw
	return !rec.Equal(records[e.host.ID()])
}

// logPostmaster notes when this site's postmaster has changed. That is for the log only: the person need not know.
func (e *Engine) logPostmaster(was, is site.View) {
	if was.Here.Postmaster != is.Here.Postmaster {
		e.log.Info("Postmaster changed", "device", is.Here.Postmaster, "before", was.Here.Postmaster, "site", strings.Join(is.Here.Members, " "))
	}
	if was.Acting != is.Acting {
		e.log.Info("This device's postmaster work changed", "acting", is.Acting)
	}
}

// followSites keeps the view and this device's record up to date.
func (e *Engine) followSites(ctx context.Context) error {
	changed, stopChanged := e.dir.Changed()
	defer stopChanged()
	met, stopMet := e.host.Watch()
	defer stopMet()
	tick := time.NewTicker(siteTick)
	defer tick.Stop()
	look := time.NewTicker(lookAroundEvery)
	defer look.Stop()
	// Nobody waits for a look that the kernel holds up: it ends by itself, and no other begins before.
	looked := make(chan site.Facts, 1)
	looking := false
	begin := func() {
		if !looking {
			looking = true
			used := e.host.LocalAddrs()
			go func() { looked <- lookAround(used) }()
		}
	}
	begin()
	for {
		e.keepSites()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-met:
		case <-tick.C:
		case <-look.C:
			begin()
		case facts := <-looked:
			looking = false
			e.sites.mu.Lock()
			e.sites.facts.Power, e.sites.facts.Link = facts.Power, facts.Link
			e.sites.mu.Unlock()
		}
	}
}

func lookAround(used []netip.Addr) (f site.Facts) {
	f.Power, f.Link = surroundings.Look(used)
	return f
}

// onBattery says that this device is known to run on its battery.
func (e *Engine) onBattery() bool {
	e.sites.mu.Lock()
	defer e.sites.mu.Unlock()
	return e.sites.facts.Power == site.Battery
}

// keepSites works the view out and writes this device's record if it is due.
func (e *Engine) keepSites() {
	if !e.tickSites() {
		return
	}
	s := &e.sites
	s.mu.Lock()
	early := time.Since(s.tried) < announceAgain
	s.mu.Unlock()
	if early {
		return
	}
	failed := !e.announce()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = time.Time{}
	if failed {
		s.tried = time.Now()
	}
}

// parting returns a context that ends after ctx has and goodbye was said. The function that it returns waits for that.
func (e *Engine) parting(ctx context.Context) (context.Context, func()) {
	inner, end := context.WithCancelCause(context.WithoutCancel(ctx))
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		e.sayGoodbye(inner)
		end(context.Cause(ctx))
	})
	return inner, func() {
		if !stop() {
			<-said
		}
		end(nil)
	}
}

// sayGoodbye has somebody else of this site do a postmaster's work at once, and not only when this device has been silent for a while.
func (e *Engine) sayGoodbye(ctx context.Context) {
	s := &e.sites
	s.mu.Lock()
	s.gone = true
	company := slices.Clone(s.view.Here.Members)
	s.mu.Unlock()
	if !e.tickSites() || !e.announce() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, e.goodbye)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range company {
		if id != e.host.ID() && e.host.Connected(id) {
			wg.Go(func() {
				st, err := e.host.Open(ctx, id, told.Protocol)
				if err == nil {
					err = told.Ask(ctx, st, e.ownVersions())
				}
				if err != nil {
					e.log.Debug("A device may not know that this one goes", "device", id, "error", err)
				}
			})
		}
	}
	wg.Wait()
}

// siteOf is what is told of where a device is; nil if that isn't known.
func (s *sites) siteOf(id string, reached bool) *api.DeviceSite {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.view.At(id)
	_, pinned := s.view.Pins[id]
	if len(at.Members) == 0 || !reached && !pinned {
		return nil
	}
	return &api.DeviceSite{
		ID: at.ID, Name: at.Name, Pinned: pinned, Here: reached && at.ID == s.view.Here.ID, Devices: slices.Clone(at.Members), Postmaster: at.Postmaster,
	}
}

// PinDevice implements api.Engine.
func (e *Engine) PinDevice(_ context.Context, req api.PinDevice) error {
	id, err := e.findDevice(req.Device)
	if err != nil {
		return err
	}
	name := strings.TrimSpace(req.Site)
	if name == "auto" {
		name = ""
	}
	s := &e.sites
	s.mu.Lock()
	if s.node == nil {
		s.mu.Unlock()
		return errConflict("A newer version of Tagalong has written where this device is.", "Pin devices on another device, or update this one.")
	}
	err = s.node.Pin(id, name, e.siteRecords())
	s.mu.Unlock()
	switch {
	case errors.Is(err, site.ErrName):
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("%q can't be a site's name.", req.Site),
			Next: fmt.Sprintf("Use up to %d printable characters, or auto.", site.MaxName), Cause: err.Error()}
	case errors.Is(err, site.ErrPins):
		return errConflict("No more devices can be pinned from this device.", "Pin it on another device, or let some go with: tagalong devices site DEVICE auto")
	case err != nil:
		return fmt.Errorf("pin a device to a site: %w", err)
	}
	if e.tickSites() && !e.announce() {
		return &api.Error{Code: api.CodeInternal, Sentence: "The site couldn't be noted now.",
			Next: "Tagalong tries again by itself; see with: tagalong devices"}
	}
	text := fmt.Sprintf("%s belongs to the site %s.", e.deviceName(id), name)
	if name == "" {
		text = e.deviceName(id) + " belongs to the site where it is seen."
	}
	e.hub.publish(api.Event{Kind: "device.site", Device: id, Text: text})
	return nil
}

// awakeClock counts time that goes on while the device sleeps, as well as is known: on some systems the clock that never jumps
// stands still meanwhile, and the wall clock tells. That one may also be set; a jump forward then looks like a sleep, which
// costs a few seconds' caution.
type awakeClock struct {
	last time.Time
	at   time.Duration
}

func (c *awakeClock) now() time.Duration {
	now := time.Now()
	if !c.last.IsZero() {
		c.at += passed(now.Sub(c.last), now.Round(0).Sub(c.last.Round(0)))
	}
	c.last = now
	return c.at
}

// passed is how much time has passed, if the two clocks say so. Small differences are corrections of the wall clock.
func passed(steady, wall time.Duration) time.Duration {
	if wall-steady > 2*time.Second {
		return wall
	}
	return steady
}
