//go:build !linux

package qemu

import (
	"context"
	"errors"
)

// tryKVM fails: KVM is Linux's.
func tryKVM(context.Context, string) error {
	return errors.New("Tagalong uses it on Linux only so far")
}
