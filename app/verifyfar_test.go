package app

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/p2p/verify"
)

// threePCs are two at home, of which desk owns the VM, and one at the office, all of which have what was written.
func threePCs(t *testing.T) (desk, laptop, nas *device, id string, r *rand.Rand) {
	t.Helper()
	sites := map[string][]string{"home": {"desk", "laptop"}, "office": {"nas"}}
	all := fleetOf(t, sites)
	// Somebody else than the owner pushes, if that stays so.
	desk, laptop, nas = all["desk"], all["laptop"], all["nas"]
	if all.posts(sites)["home"] == desk {
		desk, laptop = laptop, desk
	}
	v := desk.create("Work")
	r = rand.New(rand.NewPCG(8, 8))
	desk.scatter(v.ID, r, 1, 2, 3, 20, 700, 701)
	desk.sameAs(v.ID, laptop, nas)
	desk.standsAt(v.ID, nas)
	desk.record(v.ID)
	return desk, laptop, nas, v.ID, r
}

// standsAt waits until the owner knows where a device's copy stands.
func (d *device) standsAt(id string, other *device) {
	d.t.Helper()
	until(d.t, "the owner to know where the copy is", func() bool {
		s, err := d.disk(id).Standing(other.engine.host.ID())
		if err != nil {
			return false
		}
		defer s.Close()
		for x := range d.disk(id).Size() / blockSize {
			if s.Lacks(x) {
				return false
			}
		}
		return s.Position == other.disk(id).Position()
	})
}

// refusePushes has the device take none.
func (d *device) refusePushes() {
	d.engine.host.Handle(push.Protocol, func(_ context.Context, s p2p.Stream) { _ = s.Reset() })
}

func (d *device) pauseSync() {
	d.t.Helper()
	if err := d.engine.PauseSync(d.t.Context(), api.PauseSync{}); err != nil {
		d.t.Fatal(err)
	}
}

// TestVerifyAcrossSites is one fleet, for all that can happen to its copies: making one takes longer than each of these.
func TestVerifyAcrossSites(t *testing.T) {
	desk, laptop, nas, id, r := threePCs(t)
	repairsAfar(t, desk, laptop, nas, id, r)
	besideAPush(t, desk, nas, id, r)
	twoOfThree(t, desk, laptop, nas, id)
	heedsThePause(t, desk, nas, id)
}

// A copy at another site, which stands behind what the guest has written since, is compared, and repaired where it is proven to be damaged: without moving it, and
// with little traffic.
func repairsAfar(t *testing.T, desk, laptop, nas *device, id string, r *rand.Rand) {
	t.Helper()
	office := nas.engine.host.ID()
	nas.refusePushes()
	desk.scatter(id, r, 21, 400)
	desk.sameAs(id, laptop)
	// Beside a block that it lacks, where nothing is written, and where it is zeros.
	for _, x := range []int64{20, 700, 900} {
		nas.rot(id, x*blockSize+5)
	}
	before, _ := nas.engine.host.Traffic(desk.engine.host.ID())
	got, err := desk.verify(api.VerifyVM{VM: "Work"})
	if err != nil || !got.Clean || !got.Complete || len(got.Copies) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, f := range got.Findings {
		if f.Copies[office] != string(verify.Repaired) || len(f.Copies) != 1 || !strings.Contains(f.Sentence, "nas") {
			t.Errorf("finding %d: %+v", i, f)
		}
	}
	if len(got.Findings) == 0 {
		t.Errorf("nothing was found: %+v", got.Copies)
	}
	after, _ := nas.engine.host.Traffic(desk.engine.host.ID())
	t.Logf("%d bytes to the other site", after-before)
	want := desk.whole(id)
	for _, x := range []int64{21, 400} {
		clear(want[x*blockSize : (x+1)*blockSize])
	}
	if !bytes.Equal(nas.whole(id), want) {
		t.Error("the copy isn't what it should be where it stands")
	}
	nas.engine.host.Handle(push.Protocol, nas.engine.handlePush)
	desk.sameAs(id, nas)
	if s, _ := desk.vm("Work"); s.Replicas[0].Verified.IsZero() || s.Replicas[1].Verified.IsZero() {
		t.Errorf("%+v, %+v", got.Copies, s.Replicas)
	}
}

// The same block is bad at two of three: what the third has is right, by what was recorded, whichever that is.
func twoOfThree(t *testing.T, desk, laptop, nas *device, id string) {
	t.Helper()
	desk.standsAt(id, nas)
	desk.record(id)
	want := desk.whole(id)
	for i, bad := range [][]*device{{desk, laptop}, {desk, nas}, {laptop, nas}} {
		for _, d := range bad {
			d.rot(id, 700*blockSize+int64(i))
		}
		got, err := desk.verify(api.VerifyVM{VM: "Work"})
		if err != nil || !got.Clean || !got.Complete || len(got.Findings) != 1 {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
		for _, d := range []*device{desk, laptop, nas} {
			until(t, d.name+" to be right", func() bool { return bytes.Equal(d.whole(id), want) })
		}
		desk.live("Work")
	}
}

// What the person set about syncing counts: nothing goes to another site then, and that is said.
func heedsThePause(t *testing.T, desk, nas *device, id string) {
	t.Helper()
	nas.rot(id, 700*blockSize)
	desk.pauseSync()
	got, err := desk.verify(api.VerifyVM{VM: "Work"})
	if err != nil || !got.Clean || got.Complete || len(got.Findings) != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, c := range got.Copies {
		if far := c.Device == nas.engine.host.ID(); far != strings.Contains(c.Missing, "paused") {
			t.Errorf("%+v", c)
		}
	}
}

// A push that comes while a copy is compared is no damage.
func besideAPush(t *testing.T, desk, nas *device, id string, r *rand.Rand) {
	t.Helper()
	for range 3 {
		for range 20 {
			desk.scatter(id, r, r.Int64N(testDisk/blockSize))
		}
		got, err := desk.verify(api.VerifyVM{VM: "Work"})
		if err != nil || len(got.Findings) != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	desk.sameAs(id, nas)
}
