//go:build linux

package story

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// base is the plain raw file of a VM's disk on a PC: what would boot without Tagalong.
func (p *PC) base(vm string) string {
	return filepath.Join(p.Data, "vms", vm, "disk", "base.raw")
}

// compareDisks reads both PCs' disks whole. The engines must have ended. It returns the size.
func compareDisks(a, b *PC, vm string) (int64, error) {
	left, err := os.Open(a.base(vm))
	if err != nil {
		return 0, err
	}
	defer left.Close()
	right, err := os.Open(b.base(vm))
	if err != nil {
		return 0, err
	}
	defer right.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	var at int64
	for {
		n, errX := io.ReadFull(left, x)
		m, errY := io.ReadFull(right, y)
		if !bytes.Equal(x[:n], y[:m]) {
			for i := range min(n, m) {
				if x[i] != y[i] {
					return at, fmt.Errorf("the disks differ in block %d", (at+int64(i))/4096)
				}
			}
			return at, errors.New("the disks have different sizes")
		}
		at += int64(n)
		switch {
		case errX == nil && errY == nil:
		case ended(errX) && ended(errY):
			if at == 0 {
				return 0, errors.New("the disks are empty")
			}
			return at, nil
		default:
			return at, errors.Join(errX, errY)
		}
	}
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
