//go:build windows && !nogui

package main

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// detached gives the engine a process group of its own and no console.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS, HideWindow: true}
}
