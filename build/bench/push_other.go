//go:build !linux

package main

import (
	"context"
	"errors"
)

// benchPush needs network namespaces.
func benchPush(context.Context, settings) error {
	return errors.New("pushes are measured between network namespaces, which only Linux has")
}
