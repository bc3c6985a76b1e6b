// Package locale gives a process that runs in the locale "C" a language while Fyne wakes up.
//
// Fyne asks for the language when its package lang is initialised, long before main, and complains
// on standard error when it is "C.UTF-8": every verb of the command line would print that. Go
// initialises packages in the order of their import paths as soon as what they import is there;
// this one imports only os and so comes before text/template, which lang needs. If that order ever
// changed, the complaint would come back, and nothing worse. A test in package ui looks for it.
//
// It guarantees that Restore leaves the environment as it was found. Test it with:
// go test ./ui/...
package locale

import "os"

// language is what a process without one is given.
const language = "en_US.UTF-8"

var undo func()

func init() { undo = Give() }

// Restore takes back what was given at the start, so that child processes get the environment that
// the person set.
func Restore() { undo() }

// Give sets a language if the environment names a locale without one, and returns what takes that
// back. It must not run beside anything else that reads the environment.
func Give() func() {
	name, old := current()
	switch old {
	case "C.UTF-8", "C.utf8":
	default:
		return func() {}
	}
	// The only failure is an invalid name, and it is one of three.
	_ = os.Setenv(name, language)
	return func() { _ = os.Setenv(name, old) }
}

// current is the variable that decides, and its value.
func current() (name, value string) {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			return name, v
		}
	}
	return "", ""
}
