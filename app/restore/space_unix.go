//go:build unix

package restore

import (
	"io/fs"
	"syscall"
)

// allocated is the space a file takes, in bytes: holes don't count.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}
