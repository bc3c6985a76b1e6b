package app

import (
	"context"
	"errors"
	"slices"
	"time"

	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/site"
)

// Whom the owner mirrors to. The mirror is for devices of its own site; others get cuts (post.go). Being of one site takes both devices'
// records and some seconds, and multicast that works; a mirror only takes that the way is short. So it also goes to a device that is on a
// shared link, or whose way is as short as within a site, unless the person has pinned the two to different sites: to be wrong about a fast line costs
// traffic, to be wrong about a neighbour would cost it the present. A device whose way isn't measured yet is waited for; that takes a
// heartbeat. Where flushes wait for a second copy and nobody is near, who is far gets every write too. Who isn't near gets pushes, whatever the site view says, so nobody is left without copies.

// errFar ends the mirror to a device that isn't near any more.
var errFar = errors.New("the device isn't near any more")

const (
	// nearLook is how often it is looked whether a device is near, nearLookSoon while that isn't known of one that is connected.
	nearLook     = time.Second
	nearLookSoon = 100 * time.Millisecond
)

// nearness is how far a device is, for the mirror.
type nearness int

const (
	isFar       nearness = 0
	isNear      nearness = 1
	notMeasured nearness = 2 // connected, but nothing is known yet
	isApart     nearness = 3 // by the person's word
)

// nearness says how far a device is now. mirrored says that it counted as near a moment ago.
func (e *Engine) nearness(p p2p.PeerStatus, mirrored bool) nearness {
	e.sites.mu.Lock()
	here, pins := e.sites.view.Here, e.sites.view.Pins
	together, mine, theirs := slices.Contains(here.Members, p.ID), pins[e.host.ID()], pins[p.ID]
	e.sites.mu.Unlock()
	limit := site.Near
	if mirrored {
		limit = site.Far
	}
	switch {
	case mine != theirs:
		return isApart
	case together, mine != "" && p.Connected:
		return isNear
	case !p.Connected:
		return isFar
	case p.OnLink, p.Trip > 0 && p.Trip <= limit:
		return isNear
	case p.Trip <= 0:
		return notMeasured
	}
	return isFar
}

// mirrors says whether the device gets this disk's writes at once. known is false if it may in a moment.
func (f *feedRun) mirrors(now time.Time) (yes, known bool) {
	v := f.v
	v.mu.Lock()
	wanted := v.wanted[f.device] > 0
	v.mu.Unlock()
	peers := v.e.host.Peers()
	wanted = wanted || v.second.Two() && !v.someoneNear(peers)
	i := slices.IndexFunc(peers, func(p p2p.PeerStatus) bool { return p.ID == f.device })
	if i < 0 {
		return wanted, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := v.e.nearness(peers[i], !f.nearAt.IsZero())
	switch {
	case d == isNear:
		f.nearAt = now
	case d == isApart, now.Sub(f.nearAt) >= site.LeaveAfter:
		f.nearAt = time.Time{}
	}
	return wanted || !f.nearAt.IsZero(), d != notMeasured
}

// someoneNear says that another device is connected and near.
func (v *vm) someoneNear(peers []p2p.PeerStatus) bool {
	return slices.ContainsFunc(peers, func(p p2p.PeerStatus) bool { return p.Connected && v.e.nearness(p, true) == isNear })
}

// awaitNear returns when the device is to be mirrored to, or with false when ctx ends.
func (f *feedRun) awaitNear(ctx context.Context, wake <-chan struct{}) bool {
	for {
		yes, known := f.mirrors(time.Now())
		if yes {
			return true
		}
		look := nearLook
		if !known {
			look = nearLookSoon
		}
		select {
		case <-ctx.Done():
			return false
		case <-wake:
		case <-f.poke:
		case <-time.After(look):
		}
	}
}

// whileNear returns a context that ends when the device isn't near any more, and what waits for that to be looked at no more.
func (f *feedRun) whileNear(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(nearLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if yes, _ := f.mirrors(time.Now()); !yes {
				cancel(errFar)
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// wantFeed has the device mirrored to, however far it is, until the function that it returns is called: for a hand-off, which needs the
// other's copy to be as this disk is.
func (v *vm) wantFeed(device string) func() {
	change := func(by int) {
		v.mu.Lock()
		if v.wanted == nil {
			v.wanted = map[string]int{}
		}
		if v.wanted[device] += by; v.wanted[device] == 0 {
			delete(v.wanted, device)
		}
		f := v.feeds[device]
		v.mu.Unlock()
		if f != nil {
			select {
			case f.poke <- struct{}{}:
			default:
			}
		}
	}
	change(1)
	return func() { change(-1) }
}
