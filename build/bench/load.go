package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// load is what a contender is given to do.
type load struct {
	write bool
	block int64 // bytes
	depth int
	sync  bool // a flush after each write
}

// tool runs a program to its end and returns its standard output.
func tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		return nil, fmt.Errorf("%s: %w: %s", name, err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w (build/deps.sh bench installs it)", name, err)
	}
	return out, nil
}

// fio gives the load at random places to the server at socket, and returns its requests a second and their number.
func fio(ctx context.Context, socket string, size int64, l load, length time.Duration) (rate, count float64, err error) {
	rw, sync := "randread", "0"
	if l.write {
		rw = "randwrite"
	}
	if l.sync {
		sync = "1"
	}
	out, err := tool(ctx, "fio", "--name=bench", "--ioengine=nbd", "--uri=nbd+unix:///?socket="+socket, "--rw="+rw,
		"--bs="+strconv.FormatInt(l.block, 10), "--iodepth="+strconv.Itoa(l.depth), "--fsync="+sync, "--size="+strconv.FormatInt(size, 10),
		"--time_based", "--norandommap", "--randrepeat=0",
		fmt.Sprintf("--runtime=%dms", length.Milliseconds()), "--output-format=json")
	if err != nil {
		return 0, 0, err
	}
	var report struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				IOPS  float64
				Total float64 `json:"total_ios"`
			}
		}
	}
	// The engine says a word of its own before the report.
	_, text, _ := bytes.Cut(out, []byte("\n"))
	if err := json.Unmarshal(text, &report); err != nil {
		return 0, 0, fmt.Errorf("fio said: %s: %w", out, err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 {
		return 0, 0, fmt.Errorf("fio failed: %s", out)
	}
	done := report.Jobs[0].Read
	if l.write {
		done = report.Jobs[0].Write
	}
	return done.IOPS, done.Total, nil
}

var qemuTook = regexp.MustCompile(`Run completed in ([0-9.]+) seconds`)

// qemuImg gives the load, one place after the other, to QEMU's block layer on target (a file or an NBD URI), and returns
// its requests a second. The pattern isn't zero: zeros are a different request.
func qemuImg(ctx context.Context, target string, l load, length time.Duration) (float64, error) {
	count := 2000
	for {
		args := []string{"bench", "-f", "raw", "-t", "writeback", "-c", strconv.Itoa(count), "-d", strconv.Itoa(l.depth), "-s", strconv.FormatInt(l.block, 10)}
		if l.write {
			args = append(args, "-w", "--pattern=85")
		}
		out, err := tool(ctx, "qemu-img", append(args, target)...)
		if err != nil {
			return 0, err
		}
		m := qemuTook.FindSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("qemu-img said: %s", out)
		}
		took, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil || took <= 0 {
			return 0, fmt.Errorf("qemu-img said: %s", out)
		}
		rate := float64(count) / took
		if took >= 0.7*length.Seconds() {
			return rate, nil
		}
		// Too short to count: again, as long as it shall take.
		count = max(2*count, int(rate*length.Seconds()))
	}
}
