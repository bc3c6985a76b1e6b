package app

import (
	"sort"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/app/meter"
	"tagalong.org/tagalong/app/standing"
	"tagalong.org/tagalong/directory"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/vmdisk"
)

// toldHolds is for how long an owner's word on a copy that gets on holds on other devices. It tells anew every tellEvery as long as
// anything moves, but less often what is large (telling.pause).
const toldHolds = 4 * tellEvery

// replicas are the copies of a VM, by the names of their devices: as this device knows them if it owns the VM by r, its record, else as
// the owner last told.
func (v *vm) replicas(r directory.VM) []api.Replica {
	v.mu.Lock()
	here := v.ownerLocked()
	feeds := make([]*feedRun, 0, len(v.feeds))
	for _, f := range v.feeds {
		feeds = append(feeds, f)
	}
	v.mu.Unlock()
	out := []api.Replica{}
	if here {
		peers := v.e.host.Peers()
		for _, f := range feeds {
			out = append(out, v.replicaOf(f, peers))
		}
	} else {
		out = v.remoteReplicas(r)
	}
	for device, p := range v.e.post.pushing(v.id, time.Now()) {
		for i := range out {
			if o := &out[i]; o.Device == device && o.State != api.ReplicaLive {
				o.State, o.Remaining, o.Blocks, o.Copied, o.Rate, o.ETA, o.Silent, o.At = p.State, p.Remaining, p.Blocks, p.Copied, p.Rate, p.ETA, false, time.Time{}
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].DeviceName < out[j].DeviceName })
	return out
}

func (v *vm) replicaOf(f *feedRun, peers []p2p.PeerStatus) api.Replica {
	p := f.progress()
	r := api.Replica{
		Device: f.device, DeviceName: v.e.deviceName(f.device), Position: api.Position(p.position),
		Remaining: p.remaining, Blocks: p.remaining / blockSize, Since: p.since, Overrun: p.overrun, Copied: p.copied, Rate: p.rate, Heard: p.heard,
	}
	switch p.phase {
	case vmdisk.Live:
		r.State = api.ReplicaLive
	case vmdisk.Copying:
		r.State = api.ReplicaCopying
	case vmdisk.CatchingUp, vmdisk.Comparing, vmdisk.Behind:
		r.State = api.ReplicaBehind
	default:
		r.State = api.ReplicaAway
	}
	if r.State == api.ReplicaAway && p.position != (vmdisk.Position{}) && !p.near && v.e.host.Connected(f.device) {
		r.State = api.ReplicaWaiting
	}
	r.ETA = meter.TimeLeft(p.remaining, p.rate)
	// Its heart beats on the connection that its copy comes over.
	beat := r.Heard
	for _, peer := range peers {
		if peer.ID == f.device && peer.LastSeen.After(beat) {
			beat = peer.LastSeen
		}
	}
	if (r.State == api.ReplicaLive || r.State == api.ReplicaWaiting) && r.Remaining == 0 {
		r.Heard = beat // it has said that it has all there is
	}
	if r.State == api.ReplicaAway || r.State == api.ReplicaWaiting {
		r.Rate, r.ETA = 0, 0
	} else if time.Since(beat) > api.SilentAfter {
		r.Silent, r.At, r.Rate, r.ETA = true, beat, 0, 0
	}
	return r
}

// remoteReplicas is what the owner last wrote of the replicas.
func (v *vm) remoteReplicas(r directory.VM) []api.Replica {
	out := []api.Replica{}
	infos := v.e.dir.Replicas(v.id)
	for device, info := range r.Replicas {
		if _, ok := infos[device]; !ok {
			info.Heard = info.At
			infos[device] = info // in a record of before there were others
		}
	}
	linked := v.e.linked(v.ownerID())
	for device, info := range infos {
		t, err := toldReplica(info, linked, v.heardsay(device, info.At, time.Now()))
		if err != nil {
			v.log.Debug("How a copy gets on can't be read", "device", device, "error", err)
		}
		t.Device, t.DeviceName = device, v.e.deviceName(device)
		out = append(out, t)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for device := range v.hearsay {
		if _, ok := infos[device]; !ok {
			delete(v.hearsay, device)
		}
	}
	return out
}

// toldReplica is what the owner's record says of a device's copy. linked says that the owner can be heard, known for how long its
// word is known here. An error says that a part can't be read: it counts as unknown.
func toldReplica(info directory.ReplicaInfo, linked bool, known time.Duration) (api.Replica, error) {
	said, told, err := standing.Decode(string(info.Sync))
	r := api.Replica{
		State: api.ReplicaBehind, Position: api.Position(info.Position),
		Remaining: int64(info.StaleBlocks) * blockSize, Blocks: int64(info.StaleBlocks), Heard: info.Heard, At: info.At,
	}
	switch state := api.ReplicaState(said.State); {
	case !info.Complete:
		r.State = api.ReplicaCopying // whatever else: it can't run the VM yet
	case state == api.ReplicaLive, state == api.ReplicaAway, state == api.ReplicaPushing, state == api.ReplicaWaiting:
		r.State = state
	case !told && info.StaleBlocks == 0:
		r.State = api.ReplicaLive
	}
	if r.Remaining > 0 {
		r.Since, r.Overrun = said.Since, said.Overrun
	}
	switch moves := gettingOn(api.ReplicaState(said.State)) && gettingOn(r.State); {
	case !linked, moves && known > toldHolds:
		r.Silent = true
	case moves:
		r.Rate, r.ETA = said.Rate, meter.TimeLeft(r.Remaining, said.Rate)
	}
	return r, err
}

// gettingOn says that a copy in that state gets what it lacks now.
func gettingOn(s api.ReplicaState) bool {
	return s == api.ReplicaCopying || s == api.ReplicaBehind || s == api.ReplicaPushing
}

// hearsay is a word of the owner's on a replica: At by its clock, and when it was first seen here.
type hearsay struct{ at, seen time.Time }

// heardsay says for how long the owner's word of then is known here: its clock may be another than this device's.
func (v *vm) heardsay(device string, at, now time.Time) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	last, ok := v.hearsay[device]
	if !ok || !last.at.Equal(at) {
		if v.hearsay == nil {
			v.hearsay = map[string]hearsay{}
		}
		last = hearsay{at, now}
		v.hearsay[device] = last
	}
	return now.Sub(last.seen)
}
