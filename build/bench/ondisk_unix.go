//go:build unix

package main

import "golang.org/x/sys/unix"

// onDisk is what a file takes on disk, in bytes.
func onDisk(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Blocks) * 512, nil
}
