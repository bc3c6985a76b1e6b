//go:build race

package baton

// slower is by how much less is tried when every step costs so much more.
const slower = 5
