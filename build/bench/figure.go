package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// sample is what one measurement found.
type sample struct {
	// rate is what the cell's unit says, such as requests a second.
	rate float64
	// cpu is the server's processor time for each request, or what the cell says, in microseconds; 0 if there is no server. Unlike the rate it
	// means something on a busy computer too.
	cpu float64
}

// contender is one who is measured.
type contender struct {
	name    string
	measure func(ctx context.Context) (sample, error)
	// aim is the ratio that ours shall reach against it, most the one that it shall not exceed where less is better; 0 is none.
	aim, most float64
}

// cell is one comparison. The first contender is ours, the others are its peers.
type cell struct {
	name, unit string
	contenders []contender
}

// errNoCell: no cell has what was asked for in its name.
var errNoCell = errors.New("no cell has what -only asks for in its name")

// wanted says whether s asks for any of the cells.
func wanted(s settings, cells []cell) bool {
	return slices.ContainsFunc(cells, func(c cell) bool { return strings.Contains(c.name, s.only) })
}

// compare measures the cells that s asks for and prints one line for each peer as soon as it can.
func compare(ctx context.Context, s settings, cells []cell) error {
	if !wanted(s, cells) {
		return errNoCell
	}
	for _, c := range cells {
		if !strings.Contains(c.name, s.only) {
			continue
		}
		if err := c.compare(ctx, s.rounds); err != nil {
			return err
		}
	}
	return nil
}

func (c cell) compare(ctx context.Context, rounds int) error {
	values, cpus := make([][]float64, len(c.contenders)), make([][]float64, len(c.contenders))
	// Round 0 warms up.
	for round := range rounds + 1 {
		for i := range c.contenders {
			if round%2 == 1 {
				i = len(c.contenders) - 1 - i
			}
			v, err := c.contenders[i].measure(ctx)
			if err != nil {
				return fmt.Errorf("%s with %s: %w", c.name, c.contenders[i].name, err)
			}
			if v.rate <= 0 {
				return fmt.Errorf("%s with %s: nothing was done", c.name, c.contenders[i].name)
			}
			if round > 0 {
				values[i], cpus[i] = append(values[i], v.rate), append(cpus[i], v.cpu)
			}
		}
	}
	for i, peer := range c.contenders[1:] {
		ratios := make([]float64, rounds)
		for r := range ratios {
			ratios[r] = values[0][r] / values[i+1][r]
		}
		line := fmt.Sprintf("%s ratio=%.2f ours=%.0f theirs=%.0f unit=%s peer=%s spread=%.2f-%.2f rounds=%d", c.name, median(ratios),
			median(values[0]), median(values[i+1]), c.unit, peer.name, slices.Min(ratios), slices.Max(ratios), rounds)
		if theirs := median(cpus[i+1]); theirs > 0 {
			line += fmt.Sprintf(" cpu=%.1f theircpu=%.1f", median(cpus[0]), theirs)
		}
		if peer.aim > 0 {
			line += fmt.Sprintf(" aim=%g", peer.aim)
		}
		if peer.most > 0 {
			line += fmt.Sprintf(" most=%g", peer.most)
		}
		if _, err := fmt.Fprintln(os.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
