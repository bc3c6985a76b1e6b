//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/build/guest/records"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// witnesses are all that commands talk to, without a guest around them; none of
// them works by itself.
func witnesses(t *testing.T) *commands {
	t.Helper()
	out := newOutput(&bytes.Buffer{})
	disk, err := openDisk(t.TempDir(), out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disk.close)
	ram, err := newRAM(out, defaultMemRate, 1)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	all := &disks{first: disk, out: out, dev: t.TempDir(), ctx: t.Context(), goes: func(func() error) {}}
	t.Cleanup(all.close)
	return &commands{out: out, disks: all, ram: ram, clock: newClock(out), echo: &echo{ctx: t.Context()}, efi: &efi{}, root: root}
}

// said takes what has been queued.
func said(o *output) string {
	var b strings.Builder
	for len(o.lines) > 0 {
		b.WriteString(<-o.lines)
	}
	return b.String()
}

func TestCommandsAnswerWithTheirTag(t *testing.T) {
	c := witnesses(t)
	for range 3 {
		c.disks.first.append()
	}
	for _, k := range []struct{ line, want string }{
		{"", ""},
		{"#7", ""},
		{"sync #a", "R 3 3\nOK sync durable=3 #a\n"},
		{"stop", "R 3 3\nOK stop durable=3\n"},
		{"start #b", "OK start durable=3 #b\n"},
		{"ticks #c", "K ticks=0 missing=0 doubled=0 gaps=0 maxgap_us=0 #c\n"},
		{"rate #d", "OK rate recs=20 fsync=8 mem=1 set=1 noise=0 #d\n"},
		{"rate recs=9 set=2 noise=1 #e", "OK rate recs=9 fsync=8 mem=1 set=2 noise=1 #e\n"},
		{"rate fsync=0 #f", "E rate fsync=0: not from 1 to 32 #f\n"},
		{"rate mem=x", "E rate mem=x: not a number\n"},
		{"rate speed=1", "E rate speed=1: unknown setting\n"},
		{"rate recs", "E rate recs: not a number\n"},
		{"unpack #h", "E unpack: tar: exit status 1: tar: can't open '" + c.root + "/archive.tar': No such file or directory;  #h\n"},
		{"net #i", "E net: netip.ParsePrefix(\"\"): no '/' #i\n"},
		{"net 10.0.0.7 #j", "E net: netip.ParsePrefix(\"10.0.0.7\"): no '/' #j\n"},
		{"dance now #g", "E unknown command \"dance\" #g\n"},
	} {
		c.do(k.line)
		if got := said(c.out); got != k.want {
			t.Errorf("%q: answer %q, want %q", k.line, got, k.want)
		}
	}
	c.do("status")
	if got := said(c.out); !strings.HasPrefix(got, "S ready run=") || !strings.Contains(got, " last=3 durable=3 stopped=false recs=9 ") {
		t.Errorf("status: %q", got)
	}
}

func TestStoppedWriterWritesNothing(t *testing.T) {
	c := witnesses(t)
	rest := 0.0
	if n := c.disks.first.due(time.Second/2, &rest); n != defaultRecords/2 {
		t.Errorf("%d records are due after half a second", n)
	}
	if n := c.disks.first.due(time.Hour, &rest); n != defaultRecords {
		t.Errorf("%d records are due after an hour", n)
	}
	c.do("stop")
	if n := c.disks.first.due(time.Second, &rest); n != 0 {
		t.Errorf("%d records are due after a stop", n)
	}
	c.disks.first.append()
	if n := c.disks.first.ring.Last(); n != 0 {
		t.Errorf("%d records written after a stop", n)
	}
}

func TestAFailingDiskStopsTheWriterAndIsReported(t *testing.T) {
	c := witnesses(t)
	c.disks.first.append()
	c.disks.first.close()
	c.disks.first.append()
	if got := said(c.out); !strings.HasPrefix(got, "BAD disk: ") {
		t.Errorf("said %q", got)
	}
	if !c.disks.first.stopped || c.disks.first.errs != 1 {
		t.Errorf("stopped %t, %d errors", c.disks.first.stopped, c.disks.first.errs)
	}
}

// What a start finds damaged stays in every later verdict.
func TestDamageAtBootIsReported(t *testing.T) {
	dir := t.TempDir()
	out := newOutput(&bytes.Buffer{})
	d, err := openDisk(dir, out)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		d.append()
	}
	d.sync()
	d.append()
	if _, err := d.files[0].WriteAt(make([]byte, records.Size), 5*records.Size); err != nil {
		t.Fatal(err)
	}
	d.close()
	said(out)

	d, err = openDisk(dir, out)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if got := said(out); !strings.HasPrefix(got, "BAD at boot: record 5 is lost") {
		t.Errorf("said %q", got)
	}
	if got := d.bootLine(); !strings.HasPrefix(got, "BOOT n=20 last=21 durable=20 lost=1 bad=0 run=") {
		t.Errorf("boot line %q", got)
	}
}

func TestOutputNeverBlocks(t *testing.T) {
	o := newOutput(&bytes.Buffer{})
	for range maxQueued + 5 {
		o.Printf("T")
	}
	if n := o.dropped.Load(); n != 5 {
		t.Errorf("%d dropped", n)
	}
}

func TestReadLinesBoundsALine(t *testing.T) {
	lines := make(chan string)
	go readLines(context.Background(), strings.NewReader("verify\r\n"+strings.Repeat("x", 3*maxLine)+"\nsync"), lines)
	var got []string
	for l := range lines {
		if len(l) > maxLine {
			t.Errorf("a line of %d bytes", len(l))
		}
		got = append(got, l)
	}
	if got[0] != "verify" || got[len(got)-1] != "sync" {
		t.Errorf("%d lines, from %q to %q", len(got), got[0], got[len(got)-1])
	}
}

func TestThePowerKeyIsRecognised(t *testing.T) {
	event := func(typ, code uint16, value uint32) []byte {
		e := make([]byte, eventSize)
		binary.LittleEndian.PutUint16(e[16:], typ)
		binary.LittleEndian.PutUint16(e[18:], code)
		binary.LittleEndian.PutUint32(e[20:], value)
		return e
	}
	for _, c := range []struct {
		name   string
		events []byte
		want   int
	}{
		{"nothing", nil, 0},
		{"another key", event(eventKey, 30, keyPressed), 0},
		{"released", event(eventKey, keyPower, 0), 0},
		{"half an event", event(eventKey, keyPower, keyPressed)[:20], 0},
		{"pressed twice", slices.Concat(event(0, 0, 0), event(eventKey, keyPower, keyPressed), event(eventKey, keyPower, keyPressed)), 1},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(c.events); err != nil {
			t.Fatal(err)
		}
		w.Close()
		pressed := make(chan struct{}, 1)
		waitForKey(r, pressed)
		if len(pressed) != c.want {
			t.Errorf("%s: pressed %d times", c.name, len(pressed))
		}
		if err := r.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}
}

func TestUnpack(t *testing.T) {
	c := witnesses(t)
	from := t.TempDir()
	for name, content := range map[string]string{"a": "one", "b": "three"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("tar", "-c", "-f", filepath.Join(c.root, archiveName), "-C", from, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.do("unpack #1")
	if got := said(c.out); !strings.HasPrefix(got, "OK unpack files=2 bytes=8 us=") || !strings.HasSuffix(got, " #1\n") {
		t.Errorf("it said %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(c.root, "data", "unpacked", "b")); err != nil || string(b) != "three" {
		t.Errorf("%q, %v", b, err)
	}
}

// What is on further disks is checked as the first is, and is there after the guest was started anew; they aren't touched before somebody has asked.
func TestFurtherDisks(t *testing.T) {
	c, dev := witnesses(t), t.TempDir()
	c.disks.dev = dev
	for _, name := range []string{"vda", "vdb", "vdb1", "vdc"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dev, name), 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	empty := func(name string) bool {
		b, err := os.ReadFile(filepath.Join(dev, name))
		if err != nil {
			t.Fatal(err)
		}
		return len(bytes.Trim(b, "\x00")) == 0
	}
	ask := func(line, want string) {
		t.Helper()
		c.do(line)
		if got := said(c.out); got != want {
			t.Errorf("%q: answer %q, want %q", line, got, want)
		}
	}
	c.disks.setRate(7, 3)
	ask("sync", "R 0 0\nOK sync durable=0\n")
	ask("disks", "OK disks disks=2 lost=0 bad=0 vdb=0 vdc=0\n")
	all := c.disks.all()
	if rate, fsync, _ := all[2].settings(); rate != 7 || fsync != 3 {
		t.Errorf("the last disk is written %d times a second, and synced every %d", rate, fsync)
	}
	for i, d := range all {
		for range 600*i + 2 {
			d.append()
		}
	}
	ask("stop #a", "R 2 2\nOK stop durable=2 vdb=602 vdc=1202 #a\n")
	ask("disks", "OK disks disks=2 lost=0 bad=0 vdb=0 vdc=0\n")
	for _, d := range all[1:] {
		if r, err := d.ring.Verify(func() error { return nil }); err != nil || !r.OK() {
			t.Errorf("%s: %+v, %v", d.name, r, err)
		}
	}
	if !empty("vda") || !empty("vdb1") || empty("vdb") || empty("vdc") {
		t.Error("other disks were written than those that are further ones")
	}

	// The next start finds it all, and what is missing.
	c.disks.close()
	c.disks = &disks{first: c.disks.first, out: c.out, dev: dev, ctx: t.Context(), goes: func(func() error) {}}
	ask("disks", "OK disks disks=2 lost=0 bad=0 vdb=602 vdc=1202\n")
	c.disks.close()
	f, err := os.OpenFile(filepath.Join(dev, "vdc"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(make([]byte, records.Size), furtherEvery+100*records.Size) // record 612
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	c.disks = &disks{first: c.disks.first, out: c.out, dev: dev, ctx: t.Context(), goes: func(func() error) {}}
	ask("disks", "BAD vdc at boot: record 612 is lost, its slot holds 0\nOK disks disks=2 lost=1 bad=0 vdb=602 vdc=1202\n")
	c.disks.close()

	if err := os.Truncate(filepath.Join(dev, "vdc"), 1<<20); err != nil {
		t.Fatal(err)
	}
	c.disks = &disks{first: c.disks.first, out: c.out, dev: dev, ctx: t.Context(), goes: func(func() error) {}}
	ask("disks", "E disks: vdc: it has 1048576 bytes instead of 60817408\n")
	if n := len(c.disks.all()); n != 1 {
		t.Errorf("%d disks are written after one couldn't be opened", n)
	}
}
