package baton

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestDecodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want error
	}{
		"nothing":                     {"", ErrCorrupt},
		"newer":                       {`{"version":3,"state":"owned","term":1}`, ErrVersion},
		"no version":                  {`{"state":"owned","term":1}`, ErrVersion},
		"unknown state":               {`{"version":1,"state":"sending","term":1}`, ErrCorrupt},
		"no term":                     {`{"version":1,"state":"owned"}`, ErrCorrupt},
		"given to nobody":             {`{"version":1,"state":"given","term":2}`, ErrCorrupt},
		"unknown field":               {`{"version":1,"state":"replica","colour":1}`, ErrCorrupt},
		"version 1 knows no ousted":   {`{"version":1,"state":"ousted","term":1,"over":2,"owner":"b"}`, ErrCorrupt},
		"version 1 knows no takeover": {`{"version":1,"state":"owned","term":300,"over":300}`, ErrCorrupt},
		"ousted by nobody":            {`{"version":2,"state":"ousted","term":1,"over":2}`, ErrCorrupt},
		"ousted by nothing":           {`{"version":2,"state":"ousted","term":1,"owner":"b"}`, ErrCorrupt},
		"an owner that is kept":       {`{"version":2,"state":"owned","term":1,"kept":true}`, ErrCorrupt},
		"an owner to be judged":       {`{"version":2,"state":"owned","term":1,"over":2,"judge":true}`, ErrCorrupt},
		"held by nobody":              {`{"version":2,"state":"owned","term":1,"held":true}`, ErrCorrupt},
		"owner's name too long":       {`{"version":2,"state":"replica","over":2,"owner":"` + strings.Repeat("x", maxName+1) + `"}`, ErrCorrupt},
		"too long":                    {`{"version":1,"state":"replica","peer":"` + strings.Repeat("x", maxEncoded) + `"}`, ErrCorrupt},
	} {
		if _, err := Decode(Config{}, []byte(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := NewOwner(Config{}, 0); !errors.Is(err, ErrIllegal) {
		t.Errorf("owner of term 0: %v", err)
	}
}

// TestDecodeVersion1 reads what the first version stored, in every state that
// it had: it is the same hand-off, written as version 2.
func TestDecodeVersion1(t *testing.T) {
	b, err := os.ReadFile("testdata/version1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		m, err := Decode(Config{}, []byte(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got, want := string(m.Encode()), strings.Replace(line, `"version":1`, `"version":2`, 1); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if _, err := m.Step(Event{Kind: EvRestart}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"state":"owned","term":4,"position":{"term":0,"barrier":0}}`,
		`{"version":1,"state":"given","term":5,"peer":"b","attempt":"t","position":{"term":4,"barrier":7},"live":true}`,
		`{"version":1,"state":"accepting","term":0,"peer":"b","attempt":"t","aborted":["x","y"]}`,
		`{"version":2,"state":"owned","term":5,"peer":"a","position":{"term":4,"barrier":7},"live":true,"held":true}`,
		`{"version":2,"state":"replica","term":5,"over":300,"owner":"c","judge":true}`,
		`{"version":2,"state":"ousted","term":5,"peer":"b","over":300,"owner":"c","kept":true}`,
		`{"version":2,"state":"ousted","term":6,"over":700,"owner":"c","took":true,"chosen":700}`,
		`{"version":1`, `[]`, `null`,
	} {
		f.Add([]byte(s), true, true, uint64(0))
		f.Add([]byte(s), true, false, uint64(900))
	}
	f.Fuzz(func(t *testing.T, b []byte, alive, active bool, superseded uint64) {
		m, err := Decode(Config{}, b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("undocumented error %v", err)
			}
			return
		}
		again, err := Decode(Config{}, m.Encode())
		if err != nil || string(again.Encode()) != string(m.Encode()) {
			t.Fatalf("does not survive: %s, %v", m.Encode(), err)
		}
		if _, err := m.Step(Event{Kind: EvRestart, Facts: Facts{HypervisorAlive: alive, DiskActive: active, Superseded: superseded, Owner: "z"}}); err != nil {
			t.Fatal(err)
		}
		if superseded > m.Term() && m.Owner() {
			t.Fatalf("superseded by term %d, and runs: %s", superseded, b)
		}
		switch m.State() {
		case Owned, Given, Replica, Giving, Ousted:
		default:
			t.Fatalf("restarted into %s", m.State())
		}
	})
}

// FuzzPeer lets a peer say anything at any time: it must never make the
// machine act for another attempt, fail or give the VM to it unasked.
func FuzzPeer(f *testing.F) {
	f.Add([]byte("aelrqAxcto"))
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"))
	f.Fuzz(func(t *testing.T, script []byte) {
		m, err := NewOwner(Config{}, 3)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Step(Event{Kind: EvPeerAsk, Peer: "b", Ask: "q", Attempt: "t", Live: true}); err != nil {
			t.Fatal(err)
		}
		kinds := []EventKind{EvPeerAsk, EvPeerRefuse, EvPeerOffer, EvPeerReady, EvPeerLoaded, EvPeerActive,
			EvPeerAbort, EvPeerAborted, EvPeerQuery, EvPeerCancel}
		for i, c := range script {
			ev := Event{Kind: kinds[int(c)%len(kinds)], Peer: "evil", Ask: "q", Attempt: "t", Term: uint64(c), Now: time.Unix(int64(i), 0)}
			acts, err := m.Step(ev)
			if err != nil {
				t.Fatalf("%s: %v", ev.Kind, err)
			}
			for _, a := range acts {
				if a.Peer != "evil" {
					t.Fatalf("%s made it %s", ev.Kind, a.Kind)
				}
			}
			if m.State() != Offering || m.Attempt() != "t" || m.Peer() != "b" {
				t.Fatalf("%s moved it to %s", ev.Kind, m.State())
			}
		}
	})
}
