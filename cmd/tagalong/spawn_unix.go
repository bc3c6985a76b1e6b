//go:build unix && !nogui

package main

import "syscall"

// detached gives the engine a session of its own, so that a closed terminal doesn't end it.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
