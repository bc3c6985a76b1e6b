//go:build linux

package story

import (
	"fmt"
	"time"
)

// Stretch is what was heard of one guest on one PC.
type Stretch struct {
	PC      string
	Run     string // names the guest's start
	History int
	From    time.Duration // the first tick's arrival, since the beginning
	To      time.Duration // the last one's
	First   uint64
	Last    uint64
}

// slack is how late a tick may be heard on a busy computer.
const slack = time.Second

// DoubleRuns finds guests that ran twice, or beside each other in one history.
func DoubleRuns(all []Stretch) error {
	for i, a := range all {
		for _, b := range all[i+1:] {
			switch {
			case a.Run == b.Run && a.First <= b.Last && b.First <= a.Last:
				return fmt.Errorf("the guest %s ran twice: ticks %d to %d on %s, %d to %d on %s", a.Run, a.First, a.Last, a.PC, b.First, b.Last, b.PC)
			case a.Run != b.Run && a.History == b.History && a.From+slack < b.To && b.From+slack < a.To:
				return fmt.Errorf("two guests of one history ran at once: %s on %s from %.1fs to %.1fs, %s on %s from %.1fs to %.1fs",
					a.Run, a.PC, a.From.Seconds(), a.To.Seconds(), b.Run, b.PC, b.From.Seconds(), b.To.Seconds())
			}
		}
	}
	return nil
}
