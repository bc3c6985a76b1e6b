//go:build linux

package story

import (
	"fmt"
	"os"
	"time"
)

// size writes bytes for people.
func size(n int64) string {
	const unit = 1 << 10
	f, names := float64(n), []string{"B", "KiB", "MiB", "GiB"}
	for f >= unit && len(names) > 1 {
		f /= unit
		names = names[1:]
	}
	if names[0] == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, names[0])
}

// progress is one line that moves, on a terminal; elsewhere a line now and then.
type progress struct {
	s        *Story
	what     string
	terminal bool
	told     time.Time
	shown    bool
}

func (s *Story) progress(what string) *progress {
	f, ok := s.o.Out.(*os.File)
	terminal := false
	if ok {
		info, err := f.Stat()
		terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return &progress{s: s, what: what, terminal: terminal, told: time.Now()}
}

// show tells how far it is. left is 0 when unknown.
func (p *progress) show(done, total, rate int64, left time.Duration) {
	every := 2 * time.Second
	if p.terminal {
		every = 200 * time.Millisecond
	}
	if p.s.o.Quiet || total <= 0 || time.Since(p.told) < every {
		return
	}
	p.told, p.shown = time.Now(), true
	line := fmt.Sprintf("%s: %s of %s, %s/s", p.what, size(done), size(total), size(rate))
	if left > 0 {
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	if !p.terminal {
		p.s.say("  %s", line)
		return
	}
	fmt.Fprintf(p.s.o.Out, "\r          %s\x1b[K", line)
}

func (p *progress) end() {
	if p.shown && p.terminal {
		fmt.Fprint(p.s.o.Out, "\r\x1b[K")
	}
	p.shown = false
}

// Summary is the story's last page.
func (r *Result) Summary() string {
	text := "\n"
	for i, s := range r.Switches {
		text += fmt.Sprintf("  switch %d to %-8s  guest stood still %4d ms (%d ms from stop to running)   click to running %.1f s   on the wire: memory %s, disk %s\n",
			i+1, s.To, s.GuestPause.Milliseconds(), s.StopToRun.Milliseconds(), s.Took.Seconds(), size(s.Memory), size(s.Disk))
	}
	text += fmt.Sprintf("  disk mirrored       %s in all since the last connection\n", size(r.Mirrored))
	text += fmt.Sprintf("  records             %d written, %d verified by the guest, %d lost, %d bad\n", r.Last, r.Records, r.Lost, r.Bad)
	text += fmt.Sprintf("  ticks               %d, %d missing, %d doubled\n", r.Ticks, r.Missing, r.Doubled)
	text += fmt.Sprintf("  disks               identical, %s compared byte by byte\n", size(r.Compared))
	if r.Restarts > 0 {
		text += fmt.Sprintf("  engines             died and came back %d times\n", r.Restarts)
	}
	return text
}
