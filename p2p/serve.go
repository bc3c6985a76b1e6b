package p2p

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

// Serve opens the door to members and to those to say farewell to, keeps every one of them connected and, if asked for, advertises and browses on the
// local network. It returns ctx's error when ctx ends, ErrClosed when the host is closed. Connections outlive it. It may
// run again afterwards, but only once at a time.
func (h *Host) Serve(ctx context.Context) error {
	h.mu.Lock()
	if h.closed || h.serving {
		err := ErrClosed
		if !h.closed {
			err = ErrServing
		}
		h.mu.Unlock()
		return fmt.Errorf("serve: %w", err)
	}
	h.serving = true
	h.wg.Add(1)
	h.mu.Unlock()
	defer h.wg.Done()
	defer func() {
		h.mu.Lock()
		h.serving = false
		h.gate.open.Store(false)
		h.mu.Unlock()
	}()

	sub, err := h.h.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	// Only now: who comes as soon as the door is open has its addresses noted, too.
	h.mu.Lock()
	h.gate.open.Store(!h.closed)
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(h.ctx, cancel)
	defer stop()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.noteIdentities(ctx, sub) })
	g.Go(func() error { return h.keepAll(ctx) })
	if h.disco != nil {
		g.Go(func() error { return h.disco.Serve(ctx) })
	}
	err = g.Wait()
	if h.ctx.Err() != nil {
		err = ErrClosed
	}
	return fmt.Errorf("serve: %w", err)
}

// noteIdentities saves the addresses that members tell us, at first contact and whenever they change.
func (h *Host) noteIdentities(ctx context.Context, sub event.Subscription) error {
	defer sub.Close()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, ok := <-sub.Out():
			if !ok {
				return ErrClosed
			}
			if id, ok := e.(event.EvtPeerIdentificationCompleted); ok {
				h.noteAddrs(id)
			}
		}
	}
}

// wanted lists the devices to be connected to.
func (h *Host) wanted() []string {
	list := h.opt.Members.List()
	if h.opt.Farewells != nil {
		list = append(slices.Clip(list), h.opt.Farewells.List()...)
	}
	return list
}

// keepAll runs one keeper for each device that is wanted, following the lists, until ctx ends.
func (h *Host) keepAll(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		h.mu.Lock()
		clear(h.keepers)
		h.mu.Unlock()
	}()
	for {
		want := make(map[peer.ID]bool)
		for _, m := range h.wanted() {
			id, err := decodeID(m)
			if err != nil {
				h.log.Warn("Member has an invalid device ID", "device", m)
				continue
			}
			if id != h.id {
				want[id] = true
			}
		}
		h.mu.Lock()
		for id, k := range h.keepers {
			if !want[id] {
				k.cancel()
				delete(h.keepers, id)
			}
		}
		for id := range want {
			if h.keepers[id] == nil {
				k := newKeeper(ctx, id)
				h.keepers[id] = k
				wg.Go(func() { h.keep(k) })
			}
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.allow:
		}
	}
}

// AllowChanged tells the host that the list of members or that of farewells has changed. When it returns, no removed
// device has a stream or a connection any more of before (a socket whose other end doesn't answer may take some seconds
// more to go); new members are dialled from now on, and so are those to say farewell to.
func (h *Host) AllowChanged() {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	var out []*conn
	for _, c := range h.conns {
		if c.limited != !h.gate.allowed(c.peer.id) || !h.gate.admitted(c.peer.id) {
			out = append(out, c)
		}
	}
	var gone []peer.ID
	for id := range h.peers {
		if !h.gate.admitted(id) {
			gone = append(gone, id)
			delete(h.peers, id)
		}
	}
	h.mu.Unlock()

	var wg sync.WaitGroup
	for _, c := range out {
		wg.Go(func() { h.hangUp(c) })
	}
	wg.Wait()
	for _, id := range gone {
		h.h.ConnManager().Unprotect(id, "member")
		// A connection that is just being made isn't in our books yet.
		if err := h.h.Network().ClosePeer(id); err != nil {
			h.log.Debug("Connection to a removed device ended badly", "device", id.String(), "err", err)
		}
		h.addrs.forget(id)
		h.log.Info("Device is no longer allowed", "device", id.String())
	}
	wake(h.allow)
}
