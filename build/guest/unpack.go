//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// archiveName is the archive that testguest.sh --archive leaves in the root folder.
const archiveName = "archive.tar"

// unpack unpacks the archive in the folder root into a new folder to and makes that durable. It returns how many files came out, what they
// hold together, in bytes, and how long it took by the guest's clock.
func unpack(root, to string) (files int, bytes int64, took time.Duration, err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	out, err := exec.Command("/bin/busybox", "tar", "-x", "-f", filepath.Join(root, archiveName), "-C", to).CombinedOutput()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("tar: %w: %s", err, out)
	}
	unix.Sync()
	took = time.Since(began)
	err = filepath.WalkDir(to, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			files++
			bytes += info.Size()
		}
		return err
	})
	return files, bytes, took, err
}
