package baton

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var flagUpdate = flag.Bool("update", false, "rewrite the transcripts in testdata")

// A transcript has one line per event ("> kind field=value …"), answered by the
// actions and the state. "start replica|owner N|{json}" begins with a machine.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("transcripts: %d, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
			got, err := replay(want)
			if err != nil {
				t.Fatal(err)
			}
			if *flagUpdate {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func replay(script []byte) ([]byte, error) {
	var out bytes.Buffer
	var m *Machine
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			fmt.Fprintln(&out, line)
		case strings.HasPrefix(line, "start "):
			fmt.Fprintln(&out, line)
			var err error
			if m, err = start(strings.TrimPrefix(line, "start ")); err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
		case strings.HasPrefix(line, "> ") && m != nil:
			fmt.Fprintln(&out, line)
			ev, err := parse(strings.Fields(line)[1:])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", line, err)
			}
			acts, err := m.Step(ev)
			for _, a := range acts {
				fmt.Fprintf(&out, "  %s\n", show(a))
			}
			switch {
			case errors.Is(err, ErrTooLate):
				fmt.Fprintln(&out, "! too late")
			case errors.Is(err, ErrIllegal):
				fmt.Fprintln(&out, "! illegal")
			case err != nil:
				return nil, err
			}
			fmt.Fprintf(&out, "= %s term=%d\n", m.State(), m.Term())
		}
	}
	return out.Bytes(), lines.Err()
}

func start(what string) (*Machine, error) {
	if n, ok := strings.CutPrefix(what, "owner "); ok {
		term, err := strconv.ParseUint(n, 10, 64)
		if err != nil {
			return nil, err
		}
		return NewOwner(Config{}, term)
	}
	if what == "replica" {
		return NewReplica(Config{}), nil
	}
	return Decode(Config{}, []byte(what))
}

func parse(words []string) (Event, error) {
	ev := Event{Kind: EventKind(words[0])}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "peer":
			ev.Peer = value
		case "ask":
			ev.Ask = value
		case "attempt":
			ev.Attempt = value
		case "reason":
			ev.Reason = value
		case "term":
			ev.Term, err = strconv.ParseUint(value, 10, 64)
		case "pos":
			_, err = fmt.Sscanf(value, "%d.%d", &ev.Position.Term, &ev.Position.Barrier)
		case "now":
			var d time.Duration
			d, err = time.ParseDuration(value)
			ev.Now = time.Unix(1000, 0).Add(d)
		case "live":
			ev.Live = true
		case "held":
			ev.GuestHeld = true
		case "not-written":
			ev.NotWritten = true
		case "never-ran":
			ev.NeverRan = true
		case "newer":
			ev.Newer = true
		case "mine":
			ev.Mine = true
		case "superseded":
			ev.Facts.Superseded, err = strconv.ParseUint(value, 10, 64)
		case "owner":
			ev.Facts.Owner = value
		case "alive":
			ev.Facts.HypervisorAlive = true
		case "active":
			ev.Facts.DiskActive = true
		default:
			err = fmt.Errorf("unknown field %q", key)
		}
		if err != nil {
			return ev, err
		}
	}
	return ev, nil
}

func show(a Action) string {
	words := []string{string(a.Kind)}
	add := func(ok bool, format string, args ...any) {
		if ok {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(a.Peer != "", "peer=%s", a.Peer)
	add(a.Ask != "", "ask=%s", a.Ask)
	add(a.Attempt != "", "attempt=%s", a.Attempt)
	add(a.Term != 0, "term=%d", a.Term)
	add(a.Position != Position{}, "pos=%d.%d", a.Position.Term, a.Position.Barrier)
	add(a.Live, "live")
	add(a.Guest, "guest")
	add(a.GuestHeld, "held")
	add(a.Returned, "returned")
	add(a.Reason != "", "reason=%q", a.Reason)
	add(a.State != nil, "state=%s", a.State)
	return strings.Join(words, " ")
}

// TestTranscriptsTellEveryAction makes sure that no action is without a golden line.
func TestTranscriptsTellEveryAction(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	kinds := []ActionKind{ActSave, ActStartIncoming, ActStartOutgoing, ActContinueOutgoing, ActPersistGiven, ActPersistOwned,
		ActActivateDisk, ActFenceDisk, ActRunGuest, ActResume, ActKillHypervisor, ActRecordAbort, ActBecomeReplica, ActReportStopped,
		ActPersistTakeover, ActPersistKept, ActPauseGuest, ActJudge, ActSetAside, ActYieldDisk, ActRenewTerm}
	for a := range delivered {
		kinds = append(kinds, a)
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		if !bytes.Contains(all, []byte("\n  "+string(k))) {
			t.Errorf("no transcript shows %s", k)
		}
	}
}
