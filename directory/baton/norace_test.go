//go:build !race

package baton

const slower = 1
