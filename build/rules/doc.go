// Package rules holds the tests about the source tree itself: which package may import
// which, that every package says what it is, that no file grows into two ideas. It has no
// code of its own. It reads the sources of every system at once, whatever the build
// tags; what only a compiler sees is left to go vet and staticcheck.
package rules
