package app

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/courtesy"
)

// Both ends of a comparison let their guests go first.
func TestBothEndsOfAComparisonAreCourteous(t *testing.T) {
	owner, other, id := filled(t)
	var looks [2]atomic.Int64
	for i, d := range []*device{owner, other} {
		d.stop()
		d.prepare = func(e *Engine) {
			e.courtesy = courtesy.New(courtesy.Usual, func() courtesy.Served { looks[i].Add(1); return e.guestsServed() })
		}
	}
	writeApart(t, owner, id, filling(100, 'x'))
	loseDirtySet(t, owner, id)
	owner.start()
	other.start()
	owner.live("Work")
	same(t, owner, other, id)
	if owner.engine.vm(id).feed(other.engine.host.ID()).compared.Read.Load() == 0 {
		t.Fatal("nothing was compared")
	}
	for i, d := range []*device{owner, other} {
		if looks[i].Load() == 0 {
			t.Errorf("%s doesn't look what its guests do", d.name)
		}
	}
}

// demanding is a guest that, while it wants something, has everything else stand still, or go on at floor bytes a second.
type demanding struct {
	wants atomic.Bool
	looks atomic.Int64
	floor int64
}

func (g *demanding) prepare(e *Engine) {
	rules := courtesy.Usual
	rules.Floor, rules.PerByte = max(1, g.floor), 1
	e.courtesy = courtesy.New(rules, func() courtesy.Served {
		g.looks.Add(1)
		if g.wants.Load() {
			return courtesy.Served{Open: 1}
		}
		return courtesy.Served{}
	})
}

// begunBeside is a fleet of two of which one has begun to get its first copy, beside a guest of the owner's that lets none pass.
func begunBeside(t *testing.T) (owner, other *device, id string, g *demanding) {
	t.Helper()
	g = &demanding{}
	owner, other = newDevice(t, "desk"), newDevice(t, "laptop")
	owner.stop()
	owner.prepare = g.prepare
	owner.start()
	job, err := owner.engine.CreateVM(t.Context(), api.CreateVM{Name: "Work", CPUs: 1, MemoryMiB: 64, DiskBytes: comparedDisk})
	if err != nil {
		t.Fatal(err)
	}
	if j := owner.finished(job.ID); j.Error != nil {
		t.Fatal(j.Error)
	}
	id = job.VM
	if err := owner.engine.StartVM(t.Context(), "Work"); err != nil {
		t.Fatal(err)
	}
	r, p := rand.NewChaCha8([32]byte{5}), make([]byte, comparedDisk)
	_, _ = r.Read(p)
	if err := owner.engine.vm(id).currentDisk().WriteAt(p, 0, false); err != nil {
		t.Fatal(err)
	}
	g.wants.Store(true)
	pair(t, owner, other)
	until(t, "the copy to begin", func() bool {
		f := owner.engine.vm(id).feed(other.engine.host.ID())
		return f != nil && f.stats.Data.Load() > 0
	})
	looks := g.looks.Load()
	until(t, "it to be asked again and again", func() bool { return g.looks.Load() > looks+20 })
	// What was read before it was known that the guest is busy.
	if n := moved(owner, other, id); n > comparedDisk/4 {
		t.Errorf("%d bytes were copied beside a guest that lets none pass", n)
	}
	return owner, other, id, g
}

// A first copy lets the guest go first, and goes on when that rests.
func TestAFirstCopyIsCourteous(t *testing.T) {
	owner, other, id, g := begunBeside(t)
	g.wants.Store(false)
	owner.live("Work")
	same(t, owner, other, id)
}

// But not where that is waited for: by a person who wants to switch, or by flushes that want a second copy.
func TestWhatIsWaitedForIsNotHeldUp(t *testing.T) {
	for what, do := range map[string]func(t *testing.T, owner, other *device, id string){
		"a switch": func(t *testing.T, _, other *device, _ string) {
			until(t, "the VM's record", func() bool { _, ok := other.vm("Work"); return ok })
			if _, err := other.engine.Switch(t.Context(), api.SwitchVM{VM: "Work"}); err != nil {
				t.Fatal(err)
			}
			if s := other.ended("Work"); s.Phase != api.PhaseDone {
				t.Fatalf("%+v", s)
			}
		},
		"a second copy": func(t *testing.T, owner, _ *device, _ string) {
			owner.setSync(api.SyncTwo)
			owner.live("Work")
		},
	} {
		t.Run(what, func(t *testing.T) {
			owner, other, id, _ := begunBeside(t)
			do(t, owner, other, id)
			same(t, owner, other, id)
		})
	}
}
