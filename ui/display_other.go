//go:build !unix || darwin

package ui

// findDisplay has nothing to look for where a session always has a display.
func findDisplay(string) error { return nil }

func currentDisplay() string { return "" }
