package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"pgregory.net/rapid"

	"tagalong.org/tagalong/app/api"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.50 KiB", 20 << 30: "20 GiB",
		1<<30 - 1: "1.00 GiB", 123 << 20: "123 MiB", 1<<63 - 1: "8 EiB", -1: "?"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Min(0).Draw(rt, "n")
		if s := size(n); len(s) > len("1023 MiB") || strings.ContainsAny(s, "-%") {
			rt.Fatalf("size(%d) = %q", n, s)
		}
	})
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"20G": 20 << 30, "512m": 512 << 20, "1.5T": 3 << 39, "4096": 4096, "1 K": 1024,
		"2GiB": 2 << 30, "2GB": 2 << 30, "10b": 10} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1G", "20Q", "1e9", "0x10", "inf", "NaN", "2GG", "1G1", "0", "0.0001", "99999999T", "..", "1.2.3K"} {
		if got, err := parseSize(text); api.AsError(err) == nil || api.AsError(err).Code != api.CodeUsage {
			t.Errorf("parseSize(%q) = %d, %v", text, got, err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		if n, err := parseSize(rapid.String().Draw(rt, "text")); err == nil && n <= 0 {
			rt.Fatalf("size %d", n)
		}
	})
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{900 * time.Microsecond: "900 µs", 1200 * time.Microsecond: "1.2 ms", 84 * time.Millisecond: "84 ms",
		59 * time.Second: "59 s", 90 * time.Second: "1 min", 65 * time.Minute: "1 h 5 min", 50 * time.Hour: "2 days"} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestUpToDateIsOnlySaidOfWhatWasHeardLately(t *testing.T) {
	now := time.Unix(1e9, 0)
	rapid.Check(t, func(rt *rapid.T) {
		r := api.Replica{
			State:     rapid.SampledFrom([]api.ReplicaState{api.ReplicaOwner, api.ReplicaLive, api.ReplicaCopying, api.ReplicaBehind, api.ReplicaAway, api.ReplicaPushing, api.ReplicaWaiting, "new"}).Draw(rt, "state"),
			Remaining: rapid.SampledFrom([]int64{0, 1, 1 << 30}).Draw(rt, "remaining"),
			ETA:       rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(rt, "eta"),
		}
		if rapid.Bool().Draw(rt, "heard") {
			r.Heard = now.Add(-time.Duration(rapid.IntRange(0, 100).Draw(rt, "seconds")) * time.Second)
		}
		r.Silent = rapid.Bool().Draw(rt, "silent")
		may := !r.Silent && (r.State == api.ReplicaLive || r.State == api.ReplicaWaiting) && r.Remaining == 0 && !r.Heard.IsZero() && now.Sub(r.Heard) <= api.SilentAfter
		if got := replicaWords(r, now); (got == "up to date") != may {
			rt.Fatalf("%+v is %q", r, got)
		}
	})
}

func TestHowFarBehind(t *testing.T) {
	now := time.Unix(1e9, 0)
	for want, r := range map[string]api.Replica{
		"unknown; was behind by 8 MiB (2048 blocks, 40 s) 3 min ago": {State: api.ReplicaBehind, Remaining: 8 << 20, Blocks: 2048, Silent: true,
			At: now.Add(-3 * time.Minute), Since: now.Add(-220 * time.Second)},
		"unknown; first copy, 8 MiB to go 2 days ago": {State: api.ReplicaCopying, Remaining: 8 << 20, Blocks: 2048, Silent: true, At: now.Add(-50 * time.Hour)},
		"was up to date 2 days ago":                   {State: api.ReplicaLive, Silent: true, At: now.Add(-50 * time.Hour), Heard: now.Add(-50 * time.Hour)},
		"unknown":                                     {State: api.ReplicaAway, Silent: true, At: now},
		"gets a push, behind by 8 MiB (2048 blocks, of unknown age), 1 MiB/s, 8 s left": {State: api.ReplicaPushing, Remaining: 8 << 20, Blocks: 2048, Rate: 1 << 20, ETA: 8 * time.Second},
		"waits for a push, behind by 4 KiB (1 block, 2 s)":                              {State: api.ReplicaWaiting, Remaining: 4 << 10, Blocks: 1, Since: now.Add(-2 * time.Second)},
		"live, behind by 4 KiB (1 block, 2 s)":                                          {State: api.ReplicaLive, Remaining: 4 << 10, Blocks: 1, Since: now.Add(-2 * time.Second)},
		"can't keep up since 3 min, behind by 8 MiB (2048 blocks, 40 s), 5 s left": {State: api.ReplicaBehind, Overrun: now.Add(-3 * time.Minute),
			Remaining: 8 << 20, Blocks: 2048, Since: now.Add(-40 * time.Second), ETA: 5 * time.Second},
		"catching up, behind by 8 MiB (2048 blocks, of unknown age)": {State: api.ReplicaBehind, Remaining: 8 << 20, Blocks: 2048},
		"first copy, 8 MiB to go":                                    {State: api.ReplicaCopying, Remaining: 8 << 20, Blocks: 2048},
		"away, behind by 8 MiB (2048 blocks, 2 days), not heard of yet": {State: api.ReplicaAway, Remaining: 8 << 20, Blocks: 2048,
			Since: now.Add(-50 * time.Hour)},
	} {
		if got := replicaWords(r, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"Work", "Play", "Homework", "A"}
	for text, want := range map[string]string{"Wrok": "Work", "work": "Work", "wor": "Work", "plya": "Play", "home": "Homework",
		"Zebra": "", "": "", "x": "", "Homewrok": "Homework", strings.Repeat("w", 1000): ""} {
		if got := nearest(text, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", text, got, want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		a, b := []rune(rapid.StringN(0, 20, -1).Draw(rt, "a")), []rune(rapid.StringN(0, 20, -1).Draw(rt, "b"))
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (string(a) == string(b)) || d > max(len(a), len(b)) || d < max(len(a), len(b))-min(len(a), len(b)) {
			rt.Fatalf("distance(%q, %q) = %d", string(a), string(b), d)
		}
	})
}

func TestCleanLeavesNothingThatSteers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.String().Draw(rt, "text") + rapid.SampledFrom([]string{"", "\x1b[2J", "\u202e", "\x9b", "\r", "\n", "\t", "\xff"}).Draw(rt, "end")
		for _, r := range clean(text) {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				rt.Fatalf("%q became %q", text, clean(text))
			}
		}
	})
	if got := clean("Größe 2 – 東京"); got != "Größe 2 – 東京" {
		t.Errorf("clean changed a harmless name to %q", got)
	}
}

func TestShellWord(t *testing.T) {
	for name, want := range map[string]string{"Work": "Work", "My PC": "'My PC'", "a'b": `'a'\''b'`, "": "''", "$(x)": "'$(x)'", "Büro": "Büro"} {
		if got := shellWord(name); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", name, got, want)
		}
	}
}

// TestExitCodes compares the table with the numbers that package api promises beside its codes.
func TestExitCodes(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../app/api/errors.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			v := spec.(*ast.ValueSpec)
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			number, _, _ := strings.Cut(strings.TrimSpace(v.Comment.Text()), ":")
			want, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%s has no number: %v", text, err)
			}
			if got := exitCode(fmt.Errorf("step: %w", &api.Error{Code: api.Code(text)})); got != want {
				t.Errorf("%s exits %d, promised is %d", text, got, want)
			}
			found++
		}
	}
	if found != len(exits) {
		t.Errorf("%d codes, %d in the table", found, len(exits))
	}
	if exitCode(nil) != 0 || exitCode(errors.New("x")) != 1 || exitCode(&api.Error{Code: "new"}) != 1 {
		t.Error("nil, plain or unknown errors have the wrong code")
	}
}

func TestEveryVerbExplainsItself(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "help" || !cmd.Runnable() {
			return
		}
		if cmd.Short == "" || !strings.Contains(cmd.Example, "tagalong") {
			t.Errorf("%s has no help or no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&cli{out: &output{w: &bytes.Buffer{}}}))
}

func TestFullDiskIsNoticed(t *testing.T) {
	var errOut bytes.Buffer
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"--help"}} {
		errOut.Reset()
		if code := run(args, strings.NewReader(""), brokenWriter{}, &errOut); code != 1 || !strings.Contains(errOut.String(), "can't be written") {
			t.Errorf("%q: %d %s", args, code, errOut.String())
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestProgressOnATerminal(t *testing.T) {
	var w bytes.Buffer
	p := &progress{w: &w, tty: true}
	p.show(step{name: "Checking", unmeasured: true})
	if got := w.String(); !strings.Contains(got, "Checking") {
		t.Errorf("spinner: %q", got)
	}
	w.Reset()
	p.show(step{name: "Memory", bytes: 1 << 20, total: 4 << 20, rate: 1 << 20, left: 3 * time.Second})
	for _, part := range []string{"25%", "Memory: 1 MiB of 4 MiB, 1 MiB/s, 3 s left"} {
		if !strings.Contains(w.String(), part) {
			t.Errorf("bar without %q: %q", part, w.String())
		}
	}
	w.Reset()
	p.show(step{name: "Memory", bytes: 9 << 20, total: 4 << 20}) // an estimate that was too low
	p.show(step{name: "Memory", bytes: 2 << 20, total: 4 << 20})
	if got := w.String(); !strings.Contains(got, "99%") || !strings.Contains(got, "50%") || strings.Contains(got, "\n") {
		t.Errorf("overfull bar: %q", got)
	}
	w.Reset()
	p.note("Cancelling.")
	p.clear()
	if got := w.String(); !strings.HasSuffix(got, "Cancelling.\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("note: %q", got)
	}
}

func TestProgressElsewhere(t *testing.T) {
	var w bytes.Buffer
	p := newProgress(&w, false)
	for n := range int64(100) {
		p.show(step{name: "Memory", bytes: n << 20, total: 100 << 20})
	}
	p.show(step{name: "Disk"})
	lines := strings.Split(strings.TrimSpace(w.String()), "\n")
	if lines[0] != "Memory: 0 B of 100 MiB" || lines[len(lines)-1] != "Disk" {
		t.Errorf("lines %q", lines)
	}
	w.Reset()
	newProgress(&w, true).show(step{name: "Quiet"})
	if w.Len() != 0 {
		t.Errorf("quiet says %q", w.String())
	}
}
