package vmdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/layer"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// told is the report in lines.
func told(r *Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "wrong: %s: %s\n", f.File, f.Text)
	}
	for _, f := range r.Notes {
		fmt.Fprintf(&b, "note: %s: %s\n", f.File, f.Text)
	}
	return b.String()
}

func checked(t *testing.T, m *vfs.Mem, o CheckOptions) *Report {
	t.Helper()
	o.FS = m
	r, err := Check(t.Context(), "", o)
	must(t, err)
	return r
}

// checkable is a closed owner's disk with content, hashes and a peer.
func checkable(t *testing.T) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	d := newDisk(t, 2*regionSize, quiet(m))
	must(t, d.Activate(1))
	_, err := d.Attach("p", ReplicaState{Disk: ID{1}})
	must(t, err)
	must(t, d.WriteAt(bytes.Repeat([]byte{1}, 3*hashUnit), regionSize-hashUnit, true))
	must(t, d.save())
	scrub(t, d, true)
	must(t, d.Close())
	return m
}

// A check of a closed disk changes nothing, whatever it finds.
func TestCheckFinds(t *testing.T) {
	truncate := func(name string, n int64) func(m *vfs.Mem) {
		return func(m *vfs.Mem) {
			f, err := m.Open(name)
			must(t, err)
			must(t, f.Truncate(n))
		}
	}
	for name, c := range map[string]struct {
		do    func(m *vfs.Mem)
		says  string
		notes bool // and that isn't wrong
	}{
		"nothing":    {func(*vfs.Mem) {}, "", true},
		"content":    {func(m *vfs.Mem) { flip(t, m, baseName, regionSize) }, "wrong: base.raw: 65536 bytes at byte 4194304 aren't what they were", false},
		"journal":    {func(m *vfs.Mem) { flip(t, m, journalName, journalHeader+3) }, "wrong: journal: The file is damaged", false},
		"no journal": {func(m *vfs.Mem) { must(t, m.Remove(journalName)) }, "wrong: journal: The journal is missing", false},
		"no base":    {func(m *vfs.Mem) { must(t, m.Remove(baseName)) }, "wrong: base.raw: The file is missing", false},
		"short base": {truncate(baseName, 4096), "wrong: base.raw: The file isn't as long as the disk", false},
		"epochs":     {func(m *vfs.Mem) { flip(t, m, epochsName, 20) }, "wrong: epochs: The file is damaged", false},
		"no epochs":  {func(m *vfs.Mem) { must(t, m.Remove(epochsName)) }, "", true},
		"set":        {func(m *vfs.Mem) { flip(t, m, dirtyName("p"), 60) }, "wrong: " + dirtyName("p") + ": What was known of a peer", false},
		"newer set": {func(m *vfs.Mem) {
			replaceFile(t, m, dirtyName("q"), []byte("TAGDIRT\n\x09\x00\x00\x00\x00\x00\x00\x00"))
		}, "newer version", false},
		"hashes":        {func(m *vfs.Mem) { flip(t, m, hashesName, 50) }, "wrong: hashes: The recorded hashes can't be used", false},
		"a slot":        {func(m *vfs.Mem) { flip(t, m, hashesName, slotAt(0)+100) }, "note: hashes: The recorded hashes of 1 regions", true},
		"foreign file":  {func(m *vfs.Mem) { replaceFile(t, m, "holiday.jpg", nil) }, "note: holiday.jpg: The file doesn't belong", true},
		"left over":     {func(m *vfs.Mem) { replaceFile(t, m, "journal.new", nil) }, "note: journal.new: A crash left", true},
		"foreign magic": {func(m *vfs.Mem) { replaceFile(t, m, journalName, make([]byte, 500)) }, "another program's", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := checkable(t)
			c.do(m)
			m.FailAt(0, nil, false)
			r := checked(t, m, CheckOptions{})
			if got := told(r); !strings.Contains(got, c.says) || r.OK() != c.notes || c.says == "" && got != "" {
				t.Errorf("told %q", got)
			}
			for _, f := range r.Findings {
				if f.Next == "" || f.Err == nil {
					t.Errorf("nothing to do, or no cause: %+v", f)
				}
			}
			if n := m.Calls(); n > 0 {
				t.Errorf("%d changing calls", n)
			}
		})
	}
	if r := checked(t, checkable(t), CheckOptions{}); r.Content.Verified != 3*hashUnit || r.Size != 2*regionSize || r.Position != (Position{1, 1}) {
		t.Errorf("found %+v", r)
	} else if fmt.Sprint(r.Formats) != fmt.Sprintf("[{%s 2 the disk} {epochs 2 replication} {hashes 1 the disk} {journal 3 growth}]", dirtyName("p")) {
		t.Errorf("formats %v", r.Formats)
	}
}

// After a crash a check is clean too, and takes nothing for verified that may have been written.
func TestCheckAfterCrash(t *testing.T) {
	m := checkable(t)
	d := reopen(t, quiet(m))
	must(t, d.Activate(1))
	must(t, d.WriteAt(bytes.Repeat([]byte{2}, Block), 0, true))
	r := checked(t, m.Crash(vfs.LoseUnsynced, 1), CheckOptions{})
	if !r.OK() || len(r.Notes) != 1 || r.Content.Verified != 2*hashUnit || r.Content.Busy != 2*hashUnit {
		t.Errorf("an owner: %s %+v", told(r), r.Content)
	}

	m = vfs.NewMem()
	o := quiet(m)
	o.EpochLogBytes = 1 << 30
	d = newDisk(t, 2*regionSize, o)
	a, err := d.Apply()
	must(t, err)
	must(t, a.Write(0, bytes.Repeat([]byte{1}, MaxOp)))
	must(t, a.Write(regionSize, bytes.Repeat([]byte{1}, MaxOp)))
	must(t, a.Barrier(Position{1, 1}))
	must(t, d.settle())
	scrub(t, d, true)
	must(t, a.Write(0, bytes.Repeat([]byte{2}, Block)))
	must(t, a.Barrier(Position{1, 2}))
	r = checked(t, m.After(vfs.LoseNothing, 1), CheckOptions{})
	if !r.OK() || r.Content.Verified != MaxOp || r.Content.Busy != MaxOp || r.Position != (Position{1, 2}) {
		t.Errorf("a replica: %s %+v", told(r), r)
	}

	m = vfs.NewMem()
	must(t, newReplica(t, Block, quiet(m)).Close())
	if r := checked(t, m, CheckOptions{Clear: true, Scrub: ScrubOptions{Record: true}}); !r.OK() || len(r.Notes) != 1 {
		t.Errorf("an incomplete replica: %s", told(r))
	}
}

// Only a clean check takes the mark away, and only if it is asked to.
func TestCheckClears(t *testing.T) {
	m := checkable(t)
	fsys := &badFS{FS: m, name: baseName}
	o := quiet(m)
	o.FS = fsys
	d := reopen(t, o)
	fsys.bad(syscall.EIO, nil, nil)
	if err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	r, err := d.Check(t.Context(), CheckOptions{Clear: true})
	must(t, err)
	if r.OK() || r.Cleared || len(r.Findings) != 1 || !errors.Is(r.Findings[0].Err, syscall.EIO) || r.NeedsCheck == "" {
		t.Fatalf("with an unreadable disk: %+v", r)
	}
	must(t, d.Close())
	marked := func() bool { t.Helper(); return checked(t, m, CheckOptions{}).NeedsCheck != "" }
	if r := checked(t, m, CheckOptions{}); !r.OK() || r.Cleared || !marked() {
		t.Fatalf("not asked: %+v", r)
	}
	flip(t, m, baseName, regionSize)
	if r := checked(t, m, CheckOptions{Clear: true}); r.OK() || r.Cleared || !marked() {
		t.Fatalf("damaged: %+v", r)
	}
	if r := checked(t, m, CheckOptions{Clear: true, Scrub: ScrubOptions{Record: true}}); r.OK() || r.Cleared || !marked() {
		t.Fatalf("damaged, recording: %+v", r)
	}
	flip(t, m, baseName, regionSize)
	if r := checked(t, m, CheckOptions{Clear: true}); !r.OK() || !r.Cleared || marked() {
		t.Fatalf("clean: %+v", r)
	}
}

// Damaged hashes are made anew when that is asked for.
func TestCheckRecords(t *testing.T) {
	m := checkable(t)
	flip(t, m, hashesName, 50)
	if r := checked(t, m, CheckOptions{Scrub: ScrubOptions{Record: true}}); r.Content.Recorded != 4*hashUnit && r.Content.Recorded != 3*hashUnit {
		t.Fatalf("found %+v", r.Content)
	}
	if r := checked(t, m, CheckOptions{}); !r.OK() || r.Content.Verified != 3*hashUnit {
		t.Fatalf("then found %s %+v", told(r), r.Content)
	}
}

// An open disk is checked while it is written.
func TestCheckOpenDisk(t *testing.T) {
	m := checkable(t)
	d := reopen(t, quiet(m))
	must(t, d.Activate(1))
	r, err := d.Check(t.Context(), CheckOptions{Scrub: ScrubOptions{Throttle: &meddler{do: func() {
		must(t, d.WriteAt(bytes.Repeat([]byte{9}, Block), regionSize, true))
	}}}})
	must(t, err)
	if !r.OK() || r.Content.Verified != hashUnit || r.Content.Busy != 2*hashUnit {
		t.Fatalf("found %s %+v", told(r), r.Content)
	}
	flip(t, m, journalName, journalHeader+3)
	flip(t, m, dirtyName("p"), 60)
	if r, err = d.Check(t.Context(), CheckOptions{}); err != nil || len(r.Findings) != 2 {
		t.Fatalf("found %s, %v", told(r), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Check(ctx, CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if _, err := Check(t.Context(), "", CheckOptions{FS: m}); !errors.Is(err, ErrInUse) {
		t.Fatalf("in use: %v", err)
	}
	if _, err := Check(t.Context(), "", CheckOptions{FS: vfs.NewMem()}); !errors.Is(err, ErrNoDisk) {
		t.Fatalf("no disk: %v", err)
	}
	must(t, d.Close())
	if _, err := d.Check(t.Context(), CheckOptions{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("closed: %v", err)
	}
}

// The layers are read too, and what they may have changed in base.raw isn't compared.
func TestCheckLayers(t *testing.T) {
	m := checkable(t)
	d := reopen(t, quiet(m))
	addLayer(t, d, func(l *layer.Layer) { must(t, l.WriteAt(bytes.Repeat([]byte{7}, 2*Block), regionSize-Block)) })
	name := d.stack.layers[0].Name()
	if r, err := d.Check(t.Context(), CheckOptions{}); err != nil || !r.OK() || len(r.Notes) > 0 {
		t.Fatalf("open: %s, %v", told(r), err)
	}
	m = m.After(vfs.LoseNothing, 0)
	flip(t, m, baseName, regionSize) // as a merge does that was cut short
	replaceFile(t, m, "layer-0123456789abcdef.data", nil)
	m.FailAt(0, nil, false)
	r := checked(t, m, CheckOptions{})
	if !r.OK() || r.Content.Busy != 3*hashUnit || r.Content.Verified != 0 || !strings.Contains(told(r), "note: layer-0123456789abcdef.data: ") {
		t.Fatalf("found %s %+v", told(r), r.Content)
	}
	if n := m.Calls(); n > 0 {
		t.Fatalf("%d changing calls", n)
	}
	must(t, m.Remove(name+".data"))
	if r := checked(t, m, CheckOptions{}); r.OK() || !strings.Contains(told(r), "wrong: "+name) {
		t.Fatalf("without its data: %s", told(r))
	}
}
