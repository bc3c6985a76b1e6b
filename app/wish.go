package app

import (
	"fmt"
	"time"

	"tagalong.org/tagalong/app/api"
	"tagalong.org/tagalong/p2p/handoff"
)

// wish is what the person has said of one switch.
type wish struct {
	device string        // the taker
	pause  time.Duration // for how long the guest may stand still; 0 is as it is set
	way    api.Way       // how it moves; "" leaves that to the engine
}

// wishFor remembers what was wished for the switch to the device that comes next. A peer may say anything.
func (v *vm) wishFor(device string, w wish) {
	w.device = device
	if checkPause(w.pause) != nil {
		w.pause = 0
	}
	if !w.way.Asked() {
		w.way = api.WayChosen
	}
	v.mu.Lock()
	v.wish = w
	v.mu.Unlock()
}

// wished is what was wished for the switch to the device.
func (v *vm) wished(device string) wish {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.wish.device == device {
		return v.wish
	}
	return wish{}
}

// askedWish is what a taker has said in its ask.
func askedWish(b handoff.Ask) wish {
	return wish{pause: time.Duration(min(max(b.PauseMS, 0), longestPause.Milliseconds())) * time.Millisecond, way: api.Way(b.Way)}
}

// checkWay says whether a person can ask for a way.
func checkWay(w api.Way) error {
	switch {
	case !w.Asked():
		return &api.Error{Code: api.CodeUsage, Sentence: fmt.Sprintf("There is no way %q to switch a VM.", w), Next: "Say teleport, postcopy or suspend, or leave it out."}
	}
	return nil
}
