package app

import (
	"testing"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/standing"
	"tagalong.org/tagalong/directory"
)

// What a device that isn't the owner shows of a third one is the owner's word, as long as that holds; what nobody said is unknown.
func TestWhatAnOwnerToldOfACopy(t *testing.T) {
	at := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	since := at.Add(-time.Minute)
	said := func(s api.ReplicaState) directory.Carried {
		return directory.Carried(standing.Encode(standing.Standing{State: string(s), Rate: blockSize, Since: since, Overrun: since}))
	}
	info := func(complete bool, stale uint64, sync directory.Carried) directory.ReplicaInfo {
		return directory.ReplicaInfo{Complete: complete, StaleBlocks: stale, Sync: sync, At: at, Heard: at}
	}
	for name, c := range map[string]struct {
		info   directory.ReplicaInfo
		away   bool // the owner
		known  time.Duration
		state  api.ReplicaState
		moving bool
		silent bool
		aged   bool
	}{
		"getting on":                     {info: info(true, 60, said(api.ReplicaBehind)), state: api.ReplicaBehind, moving: true, aged: true},
		"a first copy":                   {info: info(false, 60, said(api.ReplicaCopying)), state: api.ReplicaCopying, moving: true, aged: true},
		"a push":                         {info: info(true, 60, said(api.ReplicaPushing)), state: api.ReplicaPushing, moving: true, aged: true},
		"its first push":                 {info: info(false, 60, said(api.ReplicaPushing)), state: api.ReplicaCopying, moving: true, aged: true},
		"a word of before":               {info: info(true, 60, said(api.ReplicaBehind)), known: toldHolds + 1, state: api.ReplicaBehind, silent: true, aged: true},
		"no owner":                       {info: info(true, 60, said(api.ReplicaBehind)), away: true, state: api.ReplicaBehind, silent: true, aged: true},
		"no owner to say it has all":     {info: info(true, 0, said(api.ReplicaLive)), away: true, state: api.ReplicaLive, silent: true},
		"everything, for long":           {info: info(true, 0, said(api.ReplicaLive)), known: 9 * toldHolds, state: api.ReplicaLive},
		"writes under way":               {info: info(true, 2, said(api.ReplicaLive)), state: api.ReplicaLive, aged: true},
		"away, for long":                 {info: info(true, 60, said(api.ReplicaAway)), known: 9 * toldHolds, state: api.ReplicaAway, aged: true},
		"away, and not whole":            {info: info(false, 60, said(api.ReplicaAway)), state: api.ReplicaCopying, aged: true},
		"of an older program":            {info: info(true, 60, ""), known: 9 * toldHolds, state: api.ReplicaBehind},
		"of an older program, all":       {info: info(true, 0, ""), state: api.ReplicaLive},
		"of a newer program":             {info: info(true, 60, `{"v":2}`), state: api.ReplicaBehind},
		"nonsense":                       {info: info(true, 60, `{"v":1,"rate":-5,"state":"live"}`), state: api.ReplicaBehind},
		"a state that nobody here knows": {info: info(true, 60, said("flying")), state: api.ReplicaBehind, aged: true},
	} {
		r, err := toldReplica(c.info, !c.away, c.known)
		if (err != nil) != (name == "nonsense" || name == "of a newer program") {
			t.Errorf("%s: %v", name, err)
		}
		if r.State != c.state || r.Silent != c.silent || (r.Rate > 0) != c.moving || (r.ETA > 0) != c.moving || !r.Since.IsZero() != c.aged || !r.Overrun.IsZero() != c.aged {
			t.Errorf("%s: %+v", name, r)
		}
		if !r.At.Equal(at) || r.Remaining != int64(c.info.StaleBlocks)*blockSize || r.Blocks != int64(c.info.StaleBlocks) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// An owner's word is as old as it is known here, whatever its clock says, and a new one is new.
func TestHearsayHasThisDevicesAge(t *testing.T) {
	v, now := &vm{}, time.Now()
	ahead := now.Add(time.Hour)
	for _, c := range []struct {
		at    time.Time
		later time.Duration
		want  time.Duration
	}{{ahead, 0, 0}, {ahead, time.Minute, time.Minute}, {ahead.Add(1), 2 * time.Minute, 0}, {ahead.Add(1), 3 * time.Minute, time.Minute}} {
		if got := v.heardsay("d", c.at, now.Add(c.later)); got != c.want {
			t.Errorf("after %v: %v, want %v", c.later, got, c.want)
		}
	}
}
