package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"tagalong.org/tagalong/app/api"
)

// diskDir says whether text means a disk's directory, and which; otherwise it is a VM's name. A name that could be either
// is a directory only if there is a disk in it.
func diskDir(text string) (dir string, ok bool) {
	abs, err := filepath.Abs(text)
	if err != nil {
		return "", false
	}
	for _, name := range []string{"journal", "base.raw"} {
		if _, err := os.Stat(filepath.Join(abs, name)); err == nil {
			return abs, true
		}
	}
	return abs, text == "" || text == "." || text == ".." || strings.ContainsRune(text, '/') || strings.ContainsRune(text, filepath.Separator)
}

// onDisk does something to the disk that text names: here, if it is a directory whose disk nobody has open, else through the
// engine that has it.
func (c *cli) onDisk(ctx context.Context, text string, here func(dir string) error, there func(client *api.Client, disk string) error) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	dir, ok := diskDir(text)
	if !ok {
		return there(client, text)
	}
	inUse := here(dir)
	if !errors.Is(inUse, &api.Error{Code: api.CodeBusy}) {
		return inUse
	}
	if _, err := client.DiskInfo(ctx, dir); err != nil {
		// The engine of this data directory hasn't it, so what to do is what was said first.
		return inUse
	}
	return there(client, dir)
}
