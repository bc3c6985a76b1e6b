package app

import (
	"path/filepath"

	"tagalong.org/tagalong/app/limits"
	"tagalong.org/tagalong/app/surroundings"
)

// The engine's side of package limits: what a person set about pushes to other sites.

// openLimits reads what was set.
func (e *Engine) openLimits() {
	around := limits.Around{Battery: surroundings.Battery, Metered: surroundings.FollowMetered}
	if e.opt.Around != nil {
		around = *e.opt.Around
	}
	e.limits = limits.Open(limits.Options{File: filepath.Join(e.opt.DataDir, "sync.json"), Log: e.log.With("part", "limits"), Around: around})
}
