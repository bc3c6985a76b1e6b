package vmdisk

import (
	"errors"
	"math"
	"reflect"
	"testing"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// file is the content of a file of m.
func file(t *testing.T, m *vfs.Mem, name string) []byte {
	t.Helper()
	f, err := m.Open(name)
	must(t, err)
	b, err := readAll(f, 1<<30)
	must(t, err)
	return b
}

// replaceFile gives a file of m another content.
func replaceFile(t *testing.T, m *vfs.Mem, name string, b []byte) {
	t.Helper()
	_ = m.Remove(name)
	f, err := m.Create(name)
	must(t, err)
	if len(b) > 0 {
		_, err = f.WriteAt(b, 0)
	}
	must(t, err)
	must(t, f.Sync())
	must(t, m.SyncDir())
}

// sampleJournal has a stored state and some appended records, one of which is known to be durable.
func sampleJournal(t *testing.T) (b []byte, appended []int, states []*state) {
	t.Helper()
	m := vfs.NewMem()
	st := newState()
	st.complete, st.activated, st.given, st.reserved = true, 3, 2, 70000
	st.position = Position{3, 9}
	st.end(Position{2, 5})
	st.regions[7] = struct{}{}
	j, err := createJournal(m, header{id: ID{9}, size: 1 << 20}, st)
	must(t, err)
	states = append(states, j.snapshot())
	for i, r := range []record{regionRecord(recAdded, []uint32{1, 2}), reserveRecord(1 << 20), regionRecord(recRetired, []uint32{1, 7}), quietRecord(Position{3, 11})} {
		appended = append(appended, len(file(t, m, journalName)))
		seq, err := j.append(r)
		must(t, err)
		if i == 1 {
			must(t, j.syncTo(seq))
		}
		states = append(states, j.snapshot())
	}
	must(t, j.close())
	return file(t, m, journalName), append(appended, len(file(t, m, journalName))), states
}

// However much of the end is missing, what is left is a prefix, unless it was there before the file had its name.
func TestJournalTornAnywhere(t *testing.T) {
	b, at, states := sampleJournal(t)
	for n := range len(b) + 1 {
		_, st, err := parseJournal(b[:n])
		if n < at[0] {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d bytes of %d: %v", n, at[0], err)
			}
			continue
		}
		must(t, err)
		whole := 0
		for whole+1 < len(at) && at[whole+1] <= n {
			whole++
		}
		if !reflect.DeepEqual(st, states[whole]) {
			t.Fatalf("%d bytes: %+v, want %+v", n, st, states[whole])
		}
	}
}

// A flipped bit is never taken for truth; where a later record proves that it was durable it is an error.
func TestJournalDamage(t *testing.T) {
	b, at, states := sampleJournal(t)
	for i := range b {
		c := append([]byte(nil), b...)
		c[i] ^= 0x10
		_, st, err := parseJournal(c)
		if i < at[2] { // up to the record that was synced before others were appended
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("flip of byte %d: %v", i, err)
			}
			continue
		}
		must(t, err)
		if !reflect.DeepEqual(st, states[2]) && !reflect.DeepEqual(st, states[3]) {
			t.Fatalf("flip of byte %d: %+v", i, st)
		}
	}
}

func TestJournalNewerVersion(t *testing.T) {
	b, _, _ := sampleJournal(t)
	b[8] = byte(journalFormat.newest()) + 1
	if _, _, err := parseJournal(b); !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
}

func TestJournalCompacts(t *testing.T) {
	m := vfs.NewMem()
	j, err := createJournal(m, header{id: ID{9}, size: 1 << 20}, newState())
	must(t, err)
	var most int
	for i := range uint64(60) {
		rs := make([]uint32, 20000)
		for k := range rs {
			rs[k] = uint32(k)
		}
		_, err := j.append(regionRecord(recAdded, rs))
		must(t, err)
		seq, err := j.append(reserveRecord(i))
		must(t, err)
		must(t, j.syncTo(seq))
		if !j.durableTo(seq) {
			t.Fatal("synced, but not durable")
		}
		most = max(most, len(file(t, m, journalName)))
	}
	if most > 2*compactAbove {
		t.Fatalf("grew to %d bytes", most)
	}
	must(t, j.syncTo(math.MaxUint64))
	want := j.snapshot()
	must(t, j.close())
	after := m.Crash(vfs.LoseUnsynced, 1)
	j, err = openJournal(after)
	must(t, err)
	if got := j.snapshot(); !reflect.DeepEqual(got, want) {
		t.Fatal("compacted journal differs")
	}
}

// A sync that failed must not be tried again: the kernel may have dropped the data.
func TestJournalSyncFailureIsFinal(t *testing.T) {
	m := vfs.NewMem()
	j, err := createJournal(m, header{id: ID{9}, size: 1 << 20}, newState())
	must(t, err)
	seq, err := j.append(reserveRecord(5))
	must(t, err)
	m.FailAt(1, errors.New("boom"), false)
	if err := j.syncTo(seq); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if err := j.syncTo(seq); !errors.Is(err, ErrFailed) {
		t.Fatalf("second try: %v", err)
	}
	if _, err := j.append(reserveRecord(6)); !errors.Is(err, ErrFailed) {
		t.Fatalf("append: %v", err)
	}
	if err := j.commit(func(*state) {}); !errors.Is(err, ErrFailed) {
		t.Fatalf("commit: %v", err)
	}
}

func FuzzJournal(f *testing.F) {
	m := vfs.NewMem()
	st := newState()
	st.regions[3] = struct{}{}
	st.end(Position{1, 2})
	j, err := createJournal(m, header{id: ID{9}, size: 1 << 20}, st)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := j.append(reserveRecord(5)); err != nil {
		f.Fatal(err)
	}
	file, err := m.Open(journalName)
	if err != nil {
		f.Fatal(err)
	}
	b, err := readAll(file, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add([]byte(journalFormat.magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, st, err := parseJournal(b)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
		if err == nil && len(st.ends) > maxEnds {
			t.Fatal("too many ends")
		}
	})
}

// FuzzRecord goes behind the checksums.
func FuzzRecord(f *testing.F) {
	f.Add(byte(recState), make([]byte, 57))
	f.Add(byte(recAdded), []byte{1, 0, 0, 0})
	f.Add(byte(recReplica), make([]byte, 33))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		st := newState()
		if err := st.apply(record{kind, body}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		again := newState()
		for _, r := range st.records() {
			must(t, again.apply(r))
		}
		if !reflect.DeepEqual(st, again) {
			t.Fatalf("%+v becomes %+v", st, again)
		}
	})
}
