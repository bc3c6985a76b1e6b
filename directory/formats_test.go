package directory

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// unpack puts a directory that an earlier program has written into a folder of its own.
func unpack(t *testing.T, archive string) (dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", archive))
	must(t, err)
	defer func() { must(t, f.Close()) }()
	z, err := gzip.NewReader(f)
	must(t, err)
	dir = t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		must(t, err)
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			must(t, os.MkdirAll(path, 0o700))
			continue
		}
		b, err := io.ReadAll(r)
		must(t, err)
		must(t, os.WriteFile(path, b, 0o600))
	}
}

// TestFormat1 opens what the program before this format wrote: nothing is lost, what was a device's own list of members
// becomes its signed word, and it goes on.
func TestFormat1(t *testing.T) {
	var want struct {
		Digest      map[string]uint64
		Members     []Member
		Work, Twice []SignedTransfer
		Forks       []SignedTransfer
		Devices     []Device
	}
	b, err := os.ReadFile(filepath.Join("testdata", "format1.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &want))
	dir := unpack(t, "format1.tar.gz")
	for again := range 2 {
		d, err := Open(opts("a", dir))
		must(t, err)
		digest := d.Digest()
		for k, v := range want.Digest {
			if digest[k] != v {
				t.Errorf("%s has version %d, had %d", k, digest[k], v)
			}
		}
		words := []string{memberKey(id("b"), id("a")), memberKey(id("c"), id("a")), memberKey(id("gone"), id("a"))}
		if len(digest) != len(want.Digest)+len(words)+again*2 {
			t.Errorf("there are %d records: %v", len(digest), sortedStrings(digest))
		}
		for i, k := range words {
			r := d.Get([]string{k})
			if len(r) != 1 || verify(id("a"), r[0].message(), r[0].Sig) != nil {
				t.Fatalf("no word %s: %v", k, r)
			}
			if m, err := readMember(r[0]); err != nil || m.Gen != 1 || m.Removed != (i == 2) {
				t.Errorf("%s is %+v, %v", k, m, err)
			}
		}
		members := d.Members()
		for i := range members {
			members[i].By, members[i].At = "", want.Members[i].At
		}
		if !reflect.DeepEqual(members, want.Members) {
			t.Errorf("members %+v, had %+v", members, want.Members)
		}
		if gone := d.RemovedMembers(); len(gone) != 1 || gone[0].ID != id("gone") || gone[0].Name != "device gone" || gone[0].Wipe {
			t.Errorf("removed %+v", gone)
		}
		for vm, chain := range map[string][]SignedTransfer{"work": want.Work, "twice": want.Twice} {
			if got := d.Chain(vm)[:len(chain)]; !reflect.DeepEqual(hashes(got), hashes(chain)) {
				t.Errorf("%s has chain %v, had %v", vm, hashes(got), hashes(chain))
			}
		}
		if got := d.Forks("twice"); !reflect.DeepEqual(hashes(got), hashes(want.Forks)) {
			t.Errorf("forks %v, had %v", got, want.Forks)
		}
		if !d.Removed("old") || !reflect.DeepEqual(d.Devices(), want.Devices) {
			t.Errorf("removed %v, devices %+v", d.Removed("old"), d.Devices())
		}
		if state, err := d.LoadBaton("work"); again == 0 && (err != nil || string(state) != "given again") {
			t.Errorf("baton %q, %v", state, err)
		}
		if value, err := d.Local("settings"); err != nil || string(value) != "x" {
			t.Errorf("local %q, %v", value, err)
		}
		if vm, ok := d.VM("work"); again == 0 && (!ok || vm.State != "stopped" || vm.Owner != id("b") || vm.Term != 4 || vm.DiskBytes != 1<<40) {
			t.Errorf("vm %+v", vm)
		}
		if again == 0 {
			_, err = d.TakeOver("work", d.Heads("work")[0].Hash(), Position{3, 11}, BatonEntry("work", []byte("taken")))
			must(t, err)
			must(t, d.PutVM(VM{ID: "work", Name: "Taken"}))
		} else if vm, ok := d.VM("work"); !ok || vm.Name != "Taken" || vm.Owner != id("a") {
			t.Errorf("vm %+v", vm)
		}
		must(t, d.Close())
	}
}

// TestClimbIsOneCommit: a step to a newer format that fails leaves the old one.
func TestClimbIsOneCommit(t *testing.T) {
	s := &memory{m: map[string][]byte{}}
	d := open(t, s, "a", "b", "c")
	old := map[string][]byte{formatKey: []byte("1")}
	for _, m := range d.Members() {
		b, err := encodeValue(Member{ID: m.ID, Name: m.Name, PairedAt: m.PairedAt})
		must(t, err)
		old["local/member/"+m.ID] = b
	}
	for _, stored := range []bool{false, true} {
		s := &memory{m: maps.Clone(old)}
		s.fail = func() (bool, error) { return stored, errors.New("broken") }
		d, err := newDirectory(opts("a", "unused"))
		must(t, err)
		if err := d.load(s); err == nil {
			t.Fatal("opened though nothing could be written")
		}
		s.fail = nil
		d = open(t, s, "a")
		if len(d.Members()) != 2 || len(d.Digest()) != 2 || string(s.m[formatKey]) != formatVersion {
			t.Fatalf("stored %v: members %v, records %v", stored, d.Members(), d.Digest())
		}
	}
}
