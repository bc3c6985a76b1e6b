package app

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// freeMemory is how many bytes of memory the system can give away; 0 when it doesn't say.
func freeMemory() int64 { return meminfo("MemAvailable:") }

// totalMemory is how many bytes of memory the system has; 0 when it doesn't say.
func totalMemory() int64 { return meminfo("MemTotal:") }

func meminfo(field string) int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), field)
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
