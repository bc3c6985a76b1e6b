//go:build !linux

package main

import (
	"context"
	"errors"
)

func benchSwitch(context.Context, settings) error {
	return errors.New("the switch is measured between network namespaces, which only Linux has")
}
