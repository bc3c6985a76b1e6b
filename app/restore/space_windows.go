package restore

import "io/fs"

// allocated is the space a file takes, in bytes; holes count here.
func allocated(info fs.FileInfo) int64 { return info.Size() }
