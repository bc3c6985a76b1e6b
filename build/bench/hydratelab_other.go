//go:build !linux

package main

import "context"

// benchUplink and benchUnpack need network namespaces, which only Linux has.
func benchUplink(context.Context, settings) error { return nil }
func benchUnpack(context.Context, settings) error { return nil }
