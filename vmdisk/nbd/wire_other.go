//go:build !linux && !darwin

package nbd

import "net"

// peerGone can't be told here without reading what the client sent: the reader finds out.
func peerGone(net.Conn) bool { return false }

// newWire is for systems where the runtime's way of waiting is the only one.
func newWire(nc net.Conn) wire { return netWire{nc} }
