//go:build !nogui

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"tagalong.org/tagalong/app/api"
)

// maxLog is where the log of a spawned engine is turned over; one older one is kept.
const maxLog = 8 << 20

// spawnEngine starts an engine that outlives this process, without waiting for it to answer. Its
// log goes to engine.log in the data directory.
func spawnEngine(dataDir string) error {
	fail := func(step string, err error) error {
		return &api.Error{Code: api.CodeInternal, Sentence: "The engine can't be started.",
			Next: "Start it in a terminal with: tagalong engine", Cause: fmt.Sprintf("%s: %v", step, err)}
	}
	self, err := os.Executable()
	if err != nil {
		return fail("find this program", err)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return fail("create the data directory", err)
	}
	path := filepath.Join(dataDir, "engine.log")
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail("turn over the log", err)
		}
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fail("open the log", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(self, "engine", "--data", dataDir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = detached()
	if err := cmd.Start(); err != nil {
		return fail("start the engine", err)
	}
	// Nobody asks for the result; without this wait an engine that ends stays as a zombie for as
	// long as the tray lives. The goroutine ends with the engine or with this process.
	go func() { _ = cmd.Wait() }()
	return nil
}
