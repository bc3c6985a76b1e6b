//go:build !linux

package main

import (
	"context"
	"errors"
)

// benchResync needs network namespaces.
func benchResync(context.Context, settings) error {
	return errors.New("returns are measured between network namespaces, which only Linux has")
}
