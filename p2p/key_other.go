//go:build !unix

package p2p

import "io/fs"

// exposed always reports false: the mode says nothing here, and the profile folder is private to its user.
func exposed(fs.FileInfo) bool { return false }

// syncDir does nothing: the file system orders its own metadata.
func syncDir(string) error { return nil }
