//go:build !linux

package app

// onBattery can't be known here.
func onBattery() bool { return false }
