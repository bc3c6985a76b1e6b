//go:build !linux

package app

// freeMemory is unknown here.
func freeMemory() int64 { return 0 }

// totalMemory is unknown here.
func totalMemory() int64 { return 0 }
