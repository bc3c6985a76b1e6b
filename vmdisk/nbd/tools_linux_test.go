package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// These tests hold the server against the clients that people use. They need the Debian packages
// qemu-utils, libnbd-bin and fio (and coreutils), and fail without them: a conformance test that skips proves nothing.

// tool runs a program to its end and returns what it wrote.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func tryTool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: install qemu-utils, libnbd-bin and fio", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func uri(s *running, name string) string { return "nbd+unix:///" + name + "?socket=" + s.path }

// clean stops s and fails the test if the clients made the server break the Backend's contract.
func clean(t *testing.T, s *running, d *memDisk) {
	t.Helper()
	s.stop()
	if err := d.breach(); err != nil {
		t.Error(err)
	}
	if n := s.Stats().Errors; n != 0 {
		t.Errorf("%d requests failed", n)
	}
}

// image makes a file of n bytes with data, zeros and holes.
func image(t *testing.T, n int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 1<<16)
	for off := int64(0); off+int64(len(p)) <= n; off += int64(len(p)) {
		switch rnd.IntN(3) {
		case 0:
			continue
		case 1:
			clear(p)
		default:
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
		}
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(n); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNbdinfo(t *testing.T) {
	d := newMemDisk(1<<20 + 4096)
	s := serve(t, &Server{Backend: d, Name: "Work"})
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 5 64k 64k", uri(s, "Work"))
	var info struct {
		Protocol   string
		Structured bool
		Exports    []map[string]any
	}
	if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--list", "--json", uri(s, ""))), &info); err != nil {
		t.Fatal(err)
	}
	if info.Protocol != "newstyle-fixed" || !info.Structured || len(info.Exports) != 1 {
		t.Fatalf("%+v", info)
	}
	want := map[string]any{
		"export-name": "Work", "export-size": float64(1<<20 + 4096),
		"can_cache": true, "can_df": true, "can_fast_zero": false, "can_flush": true, "can_fua": true,
		"can_multi_conn": true, "can_trim": true, "can_zero": true, "is_read_only": false, "is_rotational": false,
		"block_size_minimum": 4096.0, "block_size_preferred": 4096.0, "block_size_maximum": float64(maxData),
	}
	for key, v := range want {
		if got := info.Exports[0][key]; got != v {
			t.Errorf("%s is %v, want %v", key, got, v)
		}
	}
	if got := info.Exports[0]["contexts"]; fmt.Sprint(got) != "[base:allocation]" {
		t.Errorf("contexts %v", got)
	}
	var extents []struct{ Offset, Length, Type int64 }
	if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--map", "--json", uri(s, "Work"))), &extents); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(extents), "[{0 65536 3} {65536 65536 0} {131072 921600 3}]"; got != want {
		t.Errorf("map %s, want %s", got, want)
	}
	if _, err := tryTool(t, "nbdinfo", uri(s, "Play")); err == nil {
		t.Error("an export that isn't there is found")
	}
	clean(t, s, d)
}

func TestNbdcopy(t *testing.T) {
	const size = 40<<20 + 4096
	d := newMemDisk(size)
	s := serve(t, &Server{Backend: d})
	file := image(t, size)
	tool(t, "nbdcopy", "--flush", file, uri(s, ""))
	if !bytes.Equal(d.bytes(), content(t, file)) {
		t.Fatal("the copy differs")
	}
	if d.syncs() == 0 {
		t.Error("nothing was made durable")
	}
	back := filepath.Join(t.TempDir(), "back")
	tool(t, "nbdcopy", uri(s, ""), back)
	if !bytes.Equal(content(t, back), content(t, file)) {
		t.Fatal("the copy back differs")
	}
	other := newMemDisk(size)
	o := serve(t, &Server{Backend: promptDisk{other}})
	tool(t, "nbdcopy", "--requests=64", "--request-size=4096", uri(s, ""), uri(o, ""))
	if !bytes.Equal(d.bytes(), other.bytes()) {
		t.Fatal("the copy from server to server differs")
	}
	if s.Stats().Accepted < 3 {
		t.Errorf("stats %+v: no multi-conn", s.Stats())
	}
	clean(t, s, d)
	clean(t, o, other)
}

func TestQemuImg(t *testing.T) {
	const size = 24 << 20
	d := newMemDisk(size)
	s := serve(t, &Server{Backend: d})
	file := image(t, size)
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "8", file, uri(s, ""))
	if !bytes.Equal(d.bytes(), content(t, file)) {
		t.Fatal("the converted image differs")
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri(s, ""))
	back := filepath.Join(t.TempDir(), "back.qcow2")
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri(s, ""), back)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri(s, ""), back)
	if out := tool(t, "qemu-img", "map", "--output=json", "-f", "raw", uri(s, "")); !strings.Contains(out, `"zero": true`) {
		t.Errorf("map without holes: %s", out)
	}
	before := s.Stats()
	tool(t, "qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "32", "-s", "4096", uri(s, ""))
	tool(t, "qemu-img", "bench", "-f", "raw", "-w", "-c", "1000", "-d", "16", "-s", "65536", "--flush-interval=64", uri(s, ""))
	tool(t, "qemu-img", "bench", "-f", "raw", "-c", "8", "-d", "4", "-s", "8388608", uri(s, ""))
	after := s.Stats()
	if after.Reads-before.Reads < 2008 || after.Writes-before.Writes < 1000 || after.Flushes-before.Flushes < 15 {
		t.Errorf("stats before %+v, after %+v", before, after)
	}
	clean(t, s, d)
}

// qemu-io: every length and alignment, and what QEMU makes of it for blocks of 4096 bytes.
func TestQemuIO(t *testing.T) {
	for _, size := range []int64{8 << 20, 8<<20 + 512} {
		d := newMemDisk(size)
		s := serve(t, &Server{Backend: d, Name: "Work"})
		out := tool(t, "qemu-io", "-f", "raw", "-d", "unmap",
			"-c", "write -P 1 0 1M",
			"-c", "write -P 2 512 512",
			"-c", "write -P 3 4000 200",
			"-c", "write -f -P 4 100k 10k",
			"-c", "write -z 200k 100k",
			"-c", "write -z -u 300k 100k",
			"-c", "discard 400k 100k",
			"-c", "discard 600001 5000",
			"-c", "write -P 6 7M 1M",
			"-c", "aio_write -P 7 1M 3M",
			"-c", "aio_write -P 8 4M 3M",
			"-c", "aio_flush",
			"-c", "flush",
			"-c", "read -P 1 0 512",
			"-c", "read -P 2 512 512",
			"-c", "read -P 3 4000 200",
			"-c", "read -P 1 4200 90000",
			"-c", "read -P 4 100k 10k",
			"-c", "read -P 0 200k 200k",
			"-c", "read -P 7 1M 3M",
			"-c", "read -P 8 4M 3M",
			"-c", "read -P 6 7M 1M",
			uri(s, "Work"))
		if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
			t.Errorf("qemu-io says:\n%s", out)
		}
		if got := d.bytes()[8<<20-1]; got != 6 {
			t.Errorf("last byte %d", got)
		}
		if d.isUsed(320<<10/4096) || !d.isUsed(220<<10/4096) {
			t.Error("NO_HOLE is not kept apart from its opposite")
		}
		if st := s.Stats(); st.Trims == 0 || st.Zeroes == 0 || st.Flushes == 0 || st.FUA == 0 {
			t.Errorf("stats %+v", st)
		}
		clean(t, s, d)
	}
}

func TestFioVerify(t *testing.T) {
	for _, prompt := range []bool{false, true} {
		d := newMemDisk(16 << 20)
		var b Backend = d
		if prompt {
			b = promptDisk{d}
		}
		s := serve(t, &Server{Backend: b})
		tool(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+uri(s, ""), "--rw=randwrite", "--bsrange=4k-128k",
			"--size=16m", "--iodepth=32", "--fsync=64", "--verify=crc32c", "--verify_fatal=1", "--randseed=7")
		tool(t, "fio", "--name=mixed", "--ioengine=nbd", "--uri="+uri(s, ""), "--rw=randrw", "--bs=4k", "--io_size=16m",
			"--size=16m", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--randseed=8")
		if st := s.Stats(); st.WriteBytes < 16<<20 || st.ReadBytes < 16<<20 || st.Flushes == 0 {
			t.Errorf("stats %+v", st)
		}
		clean(t, s, d)
	}
}

// qemuIO is a qemu-io that waits for a server that goes away, as the VM's disk does.
type qemuIO struct {
	t   *testing.T
	in  io.WriteCloser
	out *bytes.Buffer
	cmd *exec.Cmd
}

func startQemuIO(t *testing.T, path string) *qemuIO {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	// Without stdbuf, qemu-io takes in two lines at once and sees the second when a third comes.
	cmd := exec.CommandContext(ctx, "stdbuf", "-i0", "qemu-io", "--image-opts",
		"driver=nbd,server.type=unix,server.path="+path+",reconnect-delay=120,open-timeout=120")
	q := &qemuIO{t: t, cmd: cmd, out: new(bytes.Buffer)}
	cmd.Stdout, cmd.Stderr = q.out, q.out
	var err error
	if q.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: install qemu-utils", err)
	}
	return q
}

func (q *qemuIO) say(line string) {
	q.t.Helper()
	if _, err := io.WriteString(q.in, line+"\n"); err != nil {
		q.t.Fatal(err)
	}
}

// end lets qemu-io finish and fails the test if anything in it failed.
func (q *qemuIO) end() {
	q.t.Helper()
	q.say("quit")
	err := q.cmd.Wait()
	out := q.out.String()
	if err != nil || strings.Contains(out, "failed") || strings.Contains(out, "rror") {
		q.t.Errorf("qemu-io: %v\n%s", err, out)
	}
}

// The server goes away with a write under way and comes back: QEMU sends the write again and sees no error.
func TestQemuReconnects(t *testing.T) {
	d := newMemDisk(8 << 20)
	g := newGate()
	d.setHook(g.hold(1 << 20))
	s := serve(t, &Server{Backend: d})
	q := startQemuIO(t, s.path)
	q.say("write -P 1 0 64k")
	q.say("aio_write -P 2 1M 64k")
	wait(t, g.entered)
	// QEMU may come back, with the write again, as long as the server isn't quite gone.
	gone := make(chan struct{})
	var hangsUp sync.WaitGroup
	hangsUp.Go(func() {
		for {
			select {
			case g.release <- ErrHangUp:
			case <-gone:
				return
			}
		}
	})
	s.stop()
	close(gone)
	hangsUp.Wait()
	if got := d.bytes()[1<<20]; got != 0 {
		t.Fatalf("the held write was carried out: %d", got)
	}
	d.setHook(nil)
	again := serveAt(t, &Server{Backend: d}, s.path)
	q.say("aio_flush")
	q.say("read -P 2 1M 64k")
	q.say("read -P 1 0 64k")
	q.end()
	if st := again.Stats(); st.Writes != 1 || st.Reads != 2 {
		t.Errorf("stats of the second server %+v", st)
	}
	clean(t, again, d)
}

// ErrHangUp is a delay for QEMU, not an error; also when the server comes later than QEMU.
func TestQemuRetriesAfterHangUp(t *testing.T) {
	d := newMemDisk(8 << 20)
	var mu sync.Mutex
	left := map[string]int{"write": 1, "read": 1, "flush": 1}
	d.setHook(func(op string, _, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		if left[op] > 0 {
			left[op]--
			return ErrHangUp
		}
		return nil
	})
	var refusals atomic.Int32
	s := serve(t, &Server{Lookup: func(string) (Backend, error) {
		if refusals.Add(1) == 1 {
			return nil, ErrHangUp
		}
		return d, nil
	}})
	q := startQemuIO(t, s.path)
	q.say("write -P 3 0 1M")
	q.say("flush")
	q.say("read -P 3 0 1M")
	q.end()
	if !bytes.Equal(d.bytes()[:1<<20], fill(1<<20, 3)) {
		t.Error("the write is missing")
	}
	if n := s.Stats().HangUps; n != 3 {
		t.Errorf("%d hang-ups", n)
	}
	clean(t, s, d)
}

// A qemu-io that writes all the time sees no error while the server is replaced again and again.
func TestQemuSurvivesRestarts(t *testing.T) {
	d := newMemDisk(8 << 20)
	s := serve(t, &Server{Backend: d})
	q := startQemuIO(t, s.path)
	var want []byte
	for round := range 3 {
		for i := range 16 {
			q.say(fmt.Sprintf("aio_write -P %d %dk 192k", round*16+i+1, i*256))
			want = slices.Concat(want, fill(192<<10, byte(round*16+i+1)), make([]byte, 64<<10))
		}
		s.stop()
		s = serveAt(t, &Server{Backend: d}, s.path)
		q.say("aio_flush")
		q.say("flush")
	}
	q.end()
	if last := want[len(want)-16*256<<10:]; !bytes.Equal(d.bytes()[:len(last)], last) {
		t.Error("acknowledged writes are missing")
	}
	clean(t, s, d)
}
