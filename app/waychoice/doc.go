// Package waychoice works out how a VM best gets to another device, and what that would take.
//
// It is pure: the caller says what is known.
//
// To test: go test ./app/waychoice
package waychoice
