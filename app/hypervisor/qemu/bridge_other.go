//go:build !linux

package qemu

import (
	"errors"
	"fmt"

	"tagalong.org/tagalong/app/hypervisor"
)

var errLinuxOnly = errors.New("bridges are used on Linux only so far")

func bridged(_, _ string) (netdev string, files inherited, err error) {
	return "", nil, fmt.Errorf("%w: %w", hypervisor.ErrNoBridge, errLinuxOnly)
}

// TryBridge fails: bridges are used on Linux only. Errors: hypervisor.ErrNoBridge.
func (q *QEMU) TryBridge(string) error {
	return fmt.Errorf("%w: %w", hypervisor.ErrNoBridge, errLinuxOnly)
}

// Bridges are none.
func (q *QEMU) Bridges() []string { return nil }
