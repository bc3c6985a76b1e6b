//go:build linux || darwin

package vfs

import "golang.org/x/sys/unix"

func free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(min(st.Bavail, uint64(1<<62)/max(1, uint64(st.Bsize)))) * int64(st.Bsize), nil
}
