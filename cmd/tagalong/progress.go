package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// plainEvery is how often a step that goes on gets another line where there is no terminal.
const plainEvery = 2 * time.Second

// step is how far something long is.
type step struct {
	name       string
	bytes      int64
	total      int64 // 0 when unknown
	rate       int64 // bytes a second, 0 when unknown
	left       time.Duration
	unmeasured bool // bytes mean nothing in this step
}

// words is the step in one line.
func (s step) words() string {
	if s.unmeasured {
		return s.name
	}
	var parts []string
	switch {
	case s.total > 0:
		parts = append(parts, size(min(s.bytes, s.total))+" of "+size(s.total))
	case s.bytes > 0:
		parts = append(parts, size(s.bytes))
	}
	if s.rate > 0 {
		parts = append(parts, size(s.rate)+"/s")
	}
	if s.left > 0 {
		parts = append(parts, span(s.left)+" left")
	}
	if len(parts) == 0 {
		return s.name
	}
	return s.name + ": " + strings.Join(parts, ", ")
}

// permille is how much is done, always short of all; false when that is unknown.
func (s step) permille() (int64, bool) {
	if s.unmeasured || s.total <= 0 {
		return 0, false
	}
	return int64(min(max(float64(s.bytes)/float64(s.total), 0), 0.999) * 1000), true
}

// progress shows steps: as a bar on a terminal, as lines elsewhere.
type progress struct {
	w     io.Writer
	bar   *progressbar.ProgressBar // nil but on a terminal
	known bool                     // bar's kind
	tty   bool
	quiet bool

	name  string
	text  string
	shown time.Time
}

// newProgress shows on w, or nowhere when quiet.
func newProgress(w io.Writer, quiet bool) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, quiet: quiet, tty: ok && term.IsTerminal(int(f.Fd()))}
}

// show draws s if it is worth it.
func (p *progress) show(s step) {
	if p.quiet {
		return
	}
	text := clean(s.words())
	now := time.Now()
	if !p.tty {
		if s.name != p.name || text != p.text && now.Sub(p.shown) >= plainEvery {
			_, _ = fmt.Fprintln(p.w, text)
			p.name, p.text, p.shown = s.name, text, now
		}
		return
	}
	done, known := s.permille()
	if p.bar == nil || p.known != known {
		p.clear()
		p.bar, p.known = newBar(p.w, known), known
	}
	// Setting the number draws too; the description goes first so that both are of one moment.
	p.bar.Describe(text)
	_ = p.bar.Set64(done)
}

// note puts a line between the drawings.
func (p *progress) note(text string) {
	p.clear()
	_, _ = fmt.Fprintln(p.w, clean(text))
}

// clear takes the bar away.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

// newBar is a bar of a thousand parts, or a spinner.
func newBar(w io.Writer, known bool) *progressbar.ProgressBar {
	parts := int64(-1)
	if known {
		parts = 1000
	}
	return progressbar.NewOptions64(parts,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetWidth(24),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine: it turns when there is news
		progressbar.OptionSetTheme(progressbar.ThemeUnicode),
	)
}
