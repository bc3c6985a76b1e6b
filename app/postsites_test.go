package app

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"tagalong.org/tagalong/app/allowance"
	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/replica"
)

// link is two sites, in order.
type wanLink struct{ a, b string }

// wan counts the bytes that crossed each link between two sites so far.
func (all places) wan(sites map[string][]string) map[wanLink]int64 {
	out := map[wanLink]int64{}
	names := slices.Sorted(maps.Keys(sites))
	for i, a := range names {
		for _, b := range names[i+1:] {
			for _, x := range sites[a] {
				for _, y := range sites[b] {
					in, sent := all[x].engine.host.Traffic(all[y].engine.host.ID())
					out[wanLink{a, b}] += in + sent
				}
			}
		}
	}
	return out
}

// posts are the postmasters, by site.
func (all places) posts(sites map[string][]string) map[string]*device {
	out := map[string]*device{}
	for name, members := range sites {
		for _, m := range members {
			s := &all[m].engine.sites
			s.mu.Lock()
			if s.view.Here.Postmaster == all[m].engine.host.ID() {
				out[name] = all[m]
			}
			s.mu.Unlock()
		}
	}
	return out
}

var threeSites = map[string][]string{"attic": {"a1", "a2", "a3"}, "home": {"h1", "h2", "h3"}, "office": {"o1", "o2", "o3"}}

// TestThreeSites is three sites of three devices: what the guest writes at home comes to all, over each link between sites once; the owner's
// laptop leaves as soon as its mirror has it, and the pushes go on.
func TestThreeSites(t *testing.T) {
	all := fleetOf(t, threeSites)
	posts := all.posts(threeSites)
	// The owner is somebody who isn't the postmaster.
	owner := all["h1"]
	if posts["home"] == owner {
		owner = all["h2"]
	}
	var others, near []*device
	for name, d := range all {
		if d != owner {
			others = append(others, d)
			if name[0] == 'h' {
				near = append(near, d)
			}
		}
	}
	v := owner.create("Work")
	r := rand.New(rand.NewPCG(3, 3))
	owner.scatter(v.ID, r, 1, 2, 3)
	owner.sameAs(v.ID, others...)

	const n = 300
	before := all.wan(threeSites)
	var blocks []int64
	for _, x := range r.Perm(testDisk / blockSize)[:n] {
		blocks = append(blocks, int64(x))
	}
	owner.scatter(v.ID, r, blocks...)
	owner.sameAs(v.ID, near...)
	want := owner.whole(v.ID)
	owner.stop()
	for _, d := range others {
		until(t, d.name+" to have what the owner left", func() bool { return bytes.Equal(d.whole(v.ID), want) })
	}
	after := all.wan(threeSites)
	for l, bytes := range after {
		bytes -= before[l]
		t.Logf("%s–%s: %d bytes for %d", l.a, l.b, bytes, n*blockSize)
		most := int64(n * blockSize * 13 / 10) // the directory and the heartbeats are in it
		if l.a != "home" && l.b != "home" {
			most = n * blockSize * 3 / 10
		} else if bytes < n*blockSize {
			t.Errorf("%s–%s: only %d bytes", l.a, l.b, bytes)
		}
		if bytes > most {
			t.Errorf("%s–%s: %d bytes for %d that changed", l.a, l.b, bytes, n*blockSize)
		}
	}
}

// slowly limits what the device pushes, in bytes a second.
func (d *device) slowly(rate int64) {
	d.t.Helper()
	if err := d.engine.limits.Set(func(s *allowance.Settings) error { s.Up = rate; return nil }); err != nil {
		d.t.Fatal(err)
	}
}

// TestThePostmasterDies: in the middle of a push, without a word; the owner has left before. The next postmaster goes on where that one was.
func TestThePostmasterDies(t *testing.T) {
	sites := map[string][]string{"home": {"h1", "h2", "h3"}, "office": {"o1"}}
	all := fleetOf(t, sites)
	post := all.posts(sites)["home"]
	var home []*device
	for _, m := range sites["home"] {
		if all[m] != post {
			home = append(home, all[m])
		}
	}
	owner, next, far := home[0], home[1], all["o1"]
	v := owner.create("Work")
	r := rand.New(rand.NewPCG(5, 3))
	owner.scatter(v.ID, r, 1, 2, 3)
	owner.sameAs(v.ID, post, next, far)
	for _, d := range append(home, post) {
		d.slowly(300 << 10)
	}
	const n = 300
	before := all.wan(sites)[wanLink{"home", "office"}]
	var blocks []int64
	for _, x := range r.Perm(testDisk / blockSize)[:n] {
		blocks = append(blocks, int64(x))
	}
	owner.scatter(v.ID, r, blocks...)
	owner.sameAs(v.ID, post, next)
	want := owner.whole(v.ID)
	came := func() int64 { return far.engine.vm(v.ID).appliedBytes() }
	until(t, "the push to be half-way", func() bool { return came() > n*blockSize/2 })
	dead := far.whole(v.ID)
	owner.stop()
	_ = post.engine.host.Close()
	post.stop()
	if came := far.disk(v.ID).ReplicaState(); !came.Complete || bytes.Equal(dead, want) {
		t.Fatal("the push was over, or has broken the copy")
	}
	next.settleSites(nil)
	until(t, "the next one to have gone on", func() bool { return bytes.Equal(far.whole(v.ID), want) })
	crossed := all.wan(sites)[wanLink{"home", "office"}] - before
	t.Logf("%d bytes for %d", crossed, n*blockSize)
	if crossed > n*blockSize*13/10 {
		t.Errorf("%d bytes for %d that changed", crossed, n*blockSize)
	}
}

// A push is taken from a member only, of a cut of the VM's one history, in the name of its present term, and not by who owns the VM.
func TestPushIsRefused(t *testing.T) {
	all := fleetOf(t, map[string][]string{"home": {"desk"}, "office": {"laptop"}})
	desk, laptop := all["desk"], all["laptop"]
	v := desk.create("Work")
	desk.scatter(v.ID, rand.New(rand.NewPCG(4, 4)), 1)
	desk.sameAs(v.ID, laptop)
	disk := desk.disk(v.ID)
	here := desk.engine.host.ID()
	good := push.Hello{
		Version: push.Version,
		Target:  replica.Target{VM: v.ID, Disk: replica.ID(disk.ID()), Size: disk.Size(), Term: 1}, Cut: replica.Position{Term: 1, Barrier: 1000},
	}
	until(t, "the laptop to take pushes", func() bool { _, err := laptop.engine.pushedTo(here, good); return err == nil })
	for what, c := range map[string]struct {
		at     *device
		from   string
		change func(h *push.Hello)
		code   string
	}{
		"a stranger":      {laptop, "12D3KooWStranger", func(*push.Hello) {}, replica.RefuseOther},
		"a later term":    {laptop, here, func(h *push.Hello) { h.Term = 2 }, replica.RefuseUnknown},
		"no such VM":      {laptop, here, func(h *push.Hello) { h.VM = "play" }, replica.RefuseUnknown},
		"another disk":    {laptop, here, func(h *push.Hello) { h.Disk = replica.ID{1} }, replica.RefuseOther},
		"of another fork": {laptop, here, func(h *push.Hello) { h.Cut.Term = 7 }, replica.RefuseOther},
		"to the owner":    {desk, laptop.engine.host.ID(), func(*push.Hello) {}, replica.RefuseBusy},
	} {
		h := good
		c.change(&h)
		_, err := c.at.engine.pushedTo(c.from, h)
		var refusal *replica.Refusal
		if !errors.As(err, &refusal) || refusal.Code != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The laptop takes it over: what the desk pushes under its own term is of the past, and a push that began before may not end.
	if _, err := laptop.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
		t.Fatal(err)
	}
	if s := laptop.ended("Work"); s.Error != nil {
		t.Fatal(s.Error)
	}
	until(t, "the desk to know", func() bool {
		term, _, _ := desk.engine.dir.Owner(v.ID)
		return term == 2 && !desk.engine.vm(v.ID).owner()
	})
	var refusal *replica.Refusal
	if _, err := desk.engine.pushedTo(laptop.engine.host.ID(), good); !errors.As(err, &refusal) || refusal.Code != replica.RefuseOldTerm {
		t.Errorf("of an older term: %v", err)
	}
	if err := desk.engine.vm(v.ID).mayCommit(good); !errors.Is(err, errStaleTerm) {
		t.Errorf("a push of before may become the disk: %v", err)
	}
}
