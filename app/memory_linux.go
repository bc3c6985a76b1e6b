package app

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
)

// freeMemory is how many bytes of memory the system can give away; 0 when it doesn't say.
func freeMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "MemAvailable:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0
		}
		return kib << 10
	}
	return 0
}

var errMemory = errors.New(reasonMemory)

// enoughMemory refuses what would drive the system into swapping.
func enoughMemory(bytes int64) error {
	if free := freeMemory(); free != 0 && free < bytes {
		return errMemory
	}
	return nil
}
