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
	sync  bool  // a flush after each write
	pace  int64 // bytes a second at most; 0 is as fast as it goes
	burst int   // after how many requests it rests for restBetween; 0 is never
	// ramp is for how long it goes on already before anything is counted.
	ramp time.Duration
}

// restBetween is the rest between two bursts.
const restBetween = 200 * time.Millisecond

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

// report is what fio found: requests a second and their number, how long one took on average, and the 99th percentile of how long writes and flushes took, in nanoseconds.
type report struct {
	rate, count, mean    float64
	slowWrite, slowFlush float64
}

// fio gives the load at random places to the server at socket.
func fio(ctx context.Context, socket string, size int64, l load, length time.Duration) (found report, err error) {
	rw, sync := "randread", "0"
	if l.write {
		rw = "randwrite"
	}
	if l.sync {
		sync = "1"
	}
	args := []string{"--name=bench", "--ioengine=nbd", "--uri=nbd+unix:///?socket=" + socket, "--rw=" + rw,
		"--bs=" + strconv.FormatInt(l.block, 10), "--iodepth=" + strconv.Itoa(l.depth), "--fsync=" + sync, "--size=" + strconv.FormatInt(size, 10),
		"--time_based", "--norandommap", "--randrepeat=0",
		fmt.Sprintf("--runtime=%dms", length.Milliseconds()), "--output-format=json"}
	if l.pace > 0 {
		args = append(args, "--rate="+strconv.FormatInt(l.pace, 10))
	}
	if l.ramp > 0 {
		args = append(args, fmt.Sprintf("--ramp_time=%dms", l.ramp.Milliseconds()))
	}
	if l.burst > 0 {
		args = append(args, fmt.Sprintf("--thinktime=%d", restBetween.Microseconds()), "--thinktime_blocks="+strconv.Itoa(l.burst))
	}
	out, err := tool(ctx, "fio", args...)
	if err != nil {
		return found, err
	}
	type times struct {
		Mean       float64
		Percentile map[string]float64
	}
	var said struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				IOPS  float64
				Total float64 `json:"total_ios"`
				Clat  times   `json:"clat_ns"`
			}
			Sync struct {
				Lat times `json:"lat_ns"`
			}
		}
	}
	// The engine says a word of its own before the report.
	_, text, _ := bytes.Cut(out, []byte("\n"))
	if err := json.Unmarshal(text, &said); err != nil {
		return found, fmt.Errorf("fio said: %s: %w", out, err)
	}
	if len(said.Jobs) != 1 || said.Jobs[0].Error != 0 {
		return found, fmt.Errorf("fio failed: %s", out)
	}
	done := said.Jobs[0].Read
	if l.write {
		done = said.Jobs[0].Write
	}
	return report{done.IOPS, done.Total, done.Clat.Mean, done.Clat.Percentile[slow], said.Jobs[0].Sync.Lat.Percentile[slow]}, nil
}

// slow is what fio calls the 99th percentile.
const slow = "99.000000"

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
