package fleetsim

import (
	"tagalong.org/tagalong/app/custody"
	"tagalong.org/tagalong/vmdisk"
)

// saboteur breaks one rule on purpose, to prove that the simulator would notice.
type saboteur string

func (s saboteur) given(e *engine, g custody.Giving) error { return e.custody().Given(g) }

func (s saboteur) sent(f *mirror, pos vmdisk.Position) {}

func (s saboteur) acked(f *mirror, pos vmdisk.Position) {}

func (s saboteur) judge(e *engine, guest bool) (newer, known bool) { return e.custody().Judge(guest) }

func (s saboteur) mayReceive(e *engine) bool { return e.custody().MayReceive() }
