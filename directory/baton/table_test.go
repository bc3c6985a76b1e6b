package baton

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestTableIsTrue holds the table of the package's comment against the machine:
// what it calls illegal or too late is, and nothing else.
func TestTableIsTrue(t *testing.T) {
	src, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var columns []int
	var names []string
	rows := map[string]bool{}
	for line := range strings.Lines(strings.ReplaceAll(string(src), "\r\n", "\n")) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "//\t")
		switch {
		case !ok:
			continue
		case strings.HasPrefix(line, "event "):
			names = strings.Fields(line)
			for _, n := range names {
				columns = append(columns, strings.Index(line, n))
			}
			continue
		case columns == nil || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "restart") || strings.HasPrefix(line, "peer-returned"):
			continue
		}
		kind := strings.TrimSpace(line[:columns[1]])
		rows[strings.TrimSuffix(strings.TrimSuffix(kind, ", mine"), ", other")] = true
		for i := 1; i < len(columns); i++ {
			end := len(line)
			if i+1 < len(columns) {
				end = columns[i+1]
			}
			cell := strings.TrimSpace(line[columns[i]:end])
			m := machineIn(t, State(strings.ToLower(names[i])))
			var want error
			switch cell {
			case "!":
				want = ErrIllegal
			case "late":
				want = ErrTooLate
			case "":
				t.Errorf("%s in %s is not decided", kind, names[i])
			}
			before := string(m.Encode())
			acts, err := m.Step(eventOf(m, kind))
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s in %s is %q in the table, but: %v", kind, names[i], cell, err)
			}
			if (cell == "-" || want != nil) && (len(acts) > 0 || string(m.Encode()) != before || m.State() != State(strings.ToLower(names[i]))) {
				t.Errorf("%s in %s is %q in the table, but: %s %v", kind, names[i], cell, m.State(), kinds(acts))
			}
			if cell != "-" && want == nil && cell[0] >= 'A' && cell[0] <= 'Z' && m.State() != State(strings.ToLower(strings.TrimSuffix(cell, "*"))) {
				t.Errorf("%s in %s leads to %q in the table, but: %s", kind, names[i], cell, m.State())
			}
		}
	}
	if len(rows) != 33 {
		t.Errorf("the table has %d rows", len(rows))
	}
}

// machineIn takes a machine to a state, in the middle of attempt t1 with b.
func machineIn(t *testing.T, s State) *Machine {
	t.Helper()
	m, err := NewOwner(Config{}, 5)
	if err != nil {
		t.Fatal(err)
	}
	var script []Event
	switch s {
	case Replica, Accepting, Loaded, Taking, Starting:
		m = NewReplica(Config{})
		script = []Event{
			{Kind: EvWant, Peer: "b", Ask: "q1"},
			{Kind: EvPeerOffer, Peer: "b", Ask: "q1", Attempt: "t1", Term: 5, Live: true},
			{Kind: EvIncomingReady, Attempt: "t1"},
			{Kind: EvLoadedLocal, Attempt: "t1"},
			{Kind: EvPeerTransfer, Peer: "b", Attempt: "t1", Term: 6, Live: true},
			{Kind: EvPersisted, Term: 6},
		}
	case Ousted:
		script = []Event{{Kind: EvSuperseded, Peer: "c", Term: 300}}
	default:
		script = []Event{
			{Kind: EvPeerAsk, Peer: "b", Ask: "q1", Attempt: "t1", Live: true},
			{Kind: EvPeerReady, Peer: "b", Attempt: "t1"},
			{Kind: EvPrepared, Attempt: "t1"},
			{Kind: EvPeerLoaded, Peer: "b", Attempt: "t1"},
			{Kind: EvPersisted, Term: 6},
		}
	}
	for _, ev := range script {
		if m.State() == s && !(s == Accepting && ev.Kind != EvLoadedLocal) && !(s == Offering && ev.Kind == EvPeerReady) {
			break
		}
		if _, err := m.Step(ev); err != nil {
			t.Fatal(err)
		}
	}
	if m.State() != s {
		t.Fatalf("the way to %s ends in %s", s, m.State())
	}
	return m
}

// eventOf is the event of a row, as it is most meant in the machine's state.
func eventOf(m *Machine, row string) Event {
	kind, side, _ := strings.Cut(row, ", ")
	ev := Event{Kind: EventKind(kind), Peer: "b", Ask: "q1", Attempt: "t1", Term: 6}
	switch ev.Kind {
	case EvPersisted, EvPersistFailed:
		ev.Term = m.next.Term
	case EvSuperseded, EvTakeOver:
		ev.Term = 900
	case EvChosen:
		ev.Term, ev.Mine = 900, side == "mine"
	case EvJudged:
		ev.Term = 300
	case EvIncomingReady:
		if m.state == Accepting {
			m.try.ready = false
		}
	case EvPeerTransfer, EvClaim:
		ev.Term = 7
	case EvPeerAsk:
		if m.state == Owned {
			ev.Ask = "q2"
		}
	case EvPeerOffer:
		if m.state == Accepting {
			m.try.attempt = ""
		}
	case EvPrepared:
		if m.state == Offering {
			m.try.ready = true
		}
	case EvPeerReady:
		m.try.ready = false
	case EvSetAside:
		if m.state == Ousted {
			m.d.Chosen = 700
		}
	}
	return ev
}
