package vmdisk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"tagalong.org/tagalong/vmdisk/reclog"
	"tagalong.org/tagalong/vmdisk/vfs"
)

// The disks in testdata/v1 were written by the version "first light" (commit c58f8d1): an owner and its replica, whose device
// died. Blocks 0-15 were written with their number plus 1, and flushed; blocks 0-3 with their number plus 100, and block 8 was
// zeroed, and flushed again. The replica has both epochs, the second only in its log. A peer called lost never got anything.
//
// Those in testdata/v2 were written by the version before growth (commit ed1a17e), with the same content: that owner, who knows of a third copy too; its
// replica; and that copy, hydrating: it was given the disk at the second epoch, and had the first. Blocks 0 to 3 have been fetched or written, block 8 is stale:
// its guest wrote 77 into block 1 and 88 into block 20.
func firstLight() []byte {
	b := make([]byte, 32*Block)
	for i := range 16 {
		fill := byte(i) + 1
		if i < 4 {
			fill = byte(i) + 100
		}
		if i != 8 {
			copy(b[i*Block:], bytes.Repeat([]byte{fill}, Block))
		}
	}
	return b
}

// oldDisk is a copy of a disk in testdata.
func oldDisk(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))))
	return dir
}

// An old disk opens, has what it had, and is of the newest version from then on.
func TestOldVersionsOpen(t *testing.T) {
	for name, at := range map[string]Position{"v1/owner": {1, 1<<16 + 1}, "v1/replica": {1, 2}, "v2/owner": {1, 1<<16 + 1}, "v2/replica": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			dir := oldDisk(t, name)
			before := dirContent(t, dir)
			r, err := Check(t.Context(), dir, CheckOptions{})
			must(t, err)
			if !r.OK() || len(r.Formats) < 2 {
				t.Fatalf("checked before: %s %+v", told(r), r)
			}
			for _, f := range r.Formats {
				is := "the disk"
				if f.File == epochsName {
					is = "replication"
				}
				want := uint32(2)
				if strings.HasPrefix(name, "v1/") {
					want, is = 1, "first light"
				}
				if f.Version != want || f.Name != is {
					t.Errorf("%s has version %d %q", f.File, f.Version, f.Name)
				}
			}
			if after := dirContent(t, dir); !reflect.DeepEqual(before, after) {
				t.Error("the check changed something")
			}
			o := Options{BarrierEvery: -1, SaveEvery: -1}
			d, err := Open(dir, o)
			must(t, err)
			i := d.Info()
			if i.ID != (ID{1, 2, 3}) || i.Position != at || !i.Complete || i.NeedsCheck != "" {
				t.Errorf("opened as %+v", i)
			}
			if !bytes.Equal(content(t, d), firstLight()) {
				t.Error("the content differs")
			}
			if strings.HasSuffix(name, "/owner") {
				for _, p := range d.Peers() {
					// Its device died, so all that was logged counts as missing on all.
					if p.Remaining != 32*Block {
						t.Errorf("peer %s lacks %d bytes", p.Peer, p.Remaining)
					}
				}
				if n := len(d.Peers()); n != 2 && name == "v1/owner" || n != 3 && name == "v2/owner" {
					t.Errorf("%d peers are known", n)
				}
				must(t, d.Activate(1))
			} else {
				must(t, d.Activate(2))
			}
			must(t, d.WriteAt(firstLight(), 0, true))
			must(t, d.Close())
			r, err = Check(t.Context(), dir, CheckOptions{Scrub: ScrubOptions{Record: true}})
			must(t, err)
			if !r.OK() {
				t.Errorf("checked afterwards: %s", told(r))
			}
			for _, f := range r.Formats {
				if want, _ := formatOf(f.File); (f.File == journalName || f.File == epochsName) && f.Version != want.newest() {
					t.Errorf("%s has version %d", f.File, f.Version)
				}
			}
			d, err = Open(dir, o)
			must(t, err)
			if !bytes.Equal(content(t, d), firstLight()) {
				t.Error("the content differs after the upgrade")
			}
			must(t, d.Close())
		})
	}
}

// A disk that was being fetched goes on being fetched, with what it has of that and what its guest wrote; then it is whole, and of the newest version.
func TestOldHydrationGoesOn(t *testing.T) {
	dir := oldDisk(t, "v2/hydrating")
	before := dirContent(t, dir)
	r, err := Check(t.Context(), dir, CheckOptions{})
	must(t, err)
	if !r.OK() {
		t.Fatalf("checked before: %s", told(r))
	}
	if after := dirContent(t, dir); !reflect.DeepEqual(before, after) {
		t.Error("the check changed something")
	}
	o := Options{BarrierEvery: -1, SaveEvery: -1, Patience: -1}
	d, err := Open(dir, o)
	must(t, err)
	i := d.Info()
	if i.ID != (ID{1, 2, 3}) || !i.Hydrating || i.Before != (Position{1, 1}) || i.Term != 2 || i.NeedsCheck != "" {
		t.Fatalf("opened as %+v", i)
	}
	must(t, d.Activate(2))
	want := firstLight()
	copy(want[Block:], blockOf(77))
	copy(want[20*Block:], blockOf(88))
	b := make([]byte, Block)
	for _, x := range []int64{0, 1, 2, 9, 20} {
		must(t, d.ReadAt(b, x*Block))
		if !bytes.Equal(b, want[x*Block:(x+1)*Block]) {
			t.Errorf("block %d holds %d", x, b[0])
		}
	}
	for x := range int64(32) {
		if stale := d.Stale(x*Block, Block); stale != (x == 8) {
			t.Errorf("block %d is stale: %v", x, stale)
		}
	}
	must(t, d.Hydrate(t.Context(), &holder{content: firstLight()}))
	if !bytes.Equal(content(t, d), want) {
		t.Error("the content differs")
	}
	must(t, d.Flush())
	must(t, d.Close())
	d, err = Open(dir, o)
	must(t, err)
	if !bytes.Equal(content(t, d), want) || d.Info().Hydrating {
		t.Errorf("after the upgrade it is another: %+v", d.Info())
	}
	must(t, d.Close())
	r, err = Check(t.Context(), dir, CheckOptions{})
	must(t, err)
	if !r.OK() {
		t.Errorf("checked afterwards: %s", told(r))
	}
}

// noNewFS has no room for a new file of that name.
type noNewFS struct {
	*vfs.Mem
	name string
}

func (f *noNewFS) Create(name string) (vfs.File, error) {
	if name == f.name {
		return nil, syscall.ENOSPC
	}
	return f.Mem.Create(name)
}

// A log of version 1 that can't be made anew is written on as that, and read as that after a power cut; then it is made anew.
func TestOldLogIsWrittenOn(t *testing.T) {
	m := vfs.NewMem()
	for name, b := range dirContent(t, oldDisk(t, "v1/replica")) {
		replaceFile(t, m, name, []byte(b))
	}
	o := quiet(m)
	o.FS = &noNewFS{m, epochsName + vfs.TempSuffix}
	d := reopen(t, o)
	if d.epochs.version != 1 || d.Position() != (Position{1, 2}) {
		t.Fatalf("opened at %s with a log of version %d", d.Position(), d.epochs.version)
	}
	a, err := d.Apply()
	must(t, err)
	want := firstLight()
	for i := range byte(2) {
		must(t, a.Write(5*Block, blockOf(77+i)))
		must(t, a.Barrier(Position{1, 3 + uint64(i)}))
		copy(want[5*Block:], blockOf(77+i))
	}
	m = m.Crash(vfs.LoseUnsynced, 1)
	for range 2 {
		d = reopen(t, quiet(m))
		if d.epochs.version != epochsFormat.newest() || d.Position() != (Position{1, 4}) || !bytes.Equal(content(t, d), want) {
			t.Fatalf("at %s, the log has version %d", d.Position(), d.epochs.version)
		}
		must(t, d.Close())
	}
}

// dirContent is what the files of a directory contain, without the lock.
func dirContent(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	es, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range es {
		if e.Name() != lockName {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			must(t, err)
			out[e.Name()] = string(b)
		}
	}
	return out
}

// A journal has no records that its version doesn't know.
func TestOldJournalHasNoNewRecords(t *testing.T) {
	b, err := os.ReadFile("testdata/v1/owner/journal")
	must(t, err)
	h, _, err := parseJournal(b)
	must(t, err)
	sum := reclog.NewHasher(h.salt)
	r := checkRecord("why")
	_, last, err := reclog.Replay(b[journalHeader:], sum, 0, func(byte, []byte) error { return nil })
	must(t, err)
	b = reclog.Append(b, sum, r.kind, r.body, last+1, 0)
	if _, _, err := parseJournal(b); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a record of version 2 in version 1: %v", err)
	}
}

// The ladder is whole: names for all versions, different magic numbers, and FORMAT.md has all of it.
func TestLadder(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	must(t, err)
	seen := map[string]string{}
	for _, f := range []format{journalFormat, epochsFormat, dirtyFormat, exportFormat, staleFormat, hashesFormat} {
		if len(f.magic) != 8 || seen[f.magic] != "" || f.newest() == 0 {
			t.Errorf("%s: magic %q, which %s has", f.name, f.magic, seen[f.magic])
		}
		seen[f.magic] = f.name
		row := fmt.Sprintf("| `%s` %s |", strings.ReplaceAll(f.magic, "\n", `\n`), f.name)
		_, rest, ok := strings.Cut(string(doc), row)
		cells := strings.Split(strings.SplitN(rest, "\n", 2)[0], "|")
		for v, name := range f.rungs {
			if !ok || v >= len(cells) || !strings.HasPrefix(strings.TrimSpace(cells[v]), name) {
				t.Errorf("FORMAT.md's ladder lacks %s version %d %q", f.name, v+1, name)
			}
		}
		if _, err := f.version(f.begin(nil)); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
	if len(journalKinds) != int(journalFormat.newest())+1 {
		t.Errorf("journalKinds has %d entries", len(journalKinds))
	}
}
