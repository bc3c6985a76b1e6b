package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// server is a process that serves an image.
type server struct {
	name   string
	socket string
	cmd    *exec.Cmd
	stdin  io.WriteCloser // ours ends when it is closed, and takes orders until then
	stdout *bufio.Reader
	ended  chan struct{} // closed when the process has ended
}

// spawn starts a server and waits until it takes connections.
func spawn(ctx context.Context, name, socket string, argv ...string) (*server, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var complaints bytes.Buffer // a peer says something of every client that only knocks
	cmd.Stderr = &complaints
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w (build/deps.sh bench installs it)", name, err)
	}
	s := &server{name, socket, cmd, stdin, bufio.NewReader(stdout), make(chan struct{})}
	go func() {
		_ = cmd.Wait() // whoever waits for an answer finds out
		close(s.ended)
	}()
	for {
		nc, err := net.Dial("unix", socket)
		if err == nil {
			return s, nc.Close()
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("%s ended before it served: %w: %s", name, err, complaints.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the server, and returns when it has ended. Ours closes its disk first; the others keep nothing.
func (s *server) stop() {
	_ = s.stdin.Close()
	if s.name == "qemu-nbd" || s.name == "nbdkit" || s.name == daemon {
		_ = s.cmd.Process.Kill()
	}
	<-s.ended
}

// order has ours do something, and waits until it is done.
func (s *server) order(what string) error {
	if _, err := io.WriteString(s.stdin, what+"\n"); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	answer, err := s.stdout.ReadString('\n')
	if err != nil || answer != "done\n" {
		return fmt.Errorf("%s: asked to %s, it said %q: %w", s.name, what, answer, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// cpu is the processor time that the server has taken, in microseconds, where the system tells (Linux); else 0.
func (s *server) cpu() float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// After the name, which is in parentheses: the state, and as the 12th and 13th, user and system time in 1/100 s.
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	fields := bytes.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	return (user + system) * 10000
}

// uri is for QEMU's tools.
func (s *server) uri() string { return "nbd+unix:///?socket=" + s.socket }

// theirs starts qemu-nbd and nbdkit, each on an image of its own in dir.
func theirs(ctx context.Context, dir string, size int64) (list []*server, err error) {
	defer func() {
		if err != nil {
			stopAll(list)
		}
	}()
	for _, name := range []string{"qemu-nbd", "nbdkit"} {
		image, socket := filepath.Join(dir, name+".raw"), filepath.Join(dir, name+".socket")
		if err := makeImage(image, size); err != nil {
			return list, err
		}
		argv := []string{name, "-t", "-f", "raw", "--cache=writeback", "-e", "16", "-k", socket, image}
		if name == "nbdkit" {
			argv = []string{name, "-f", "-U", socket, "file", image}
		}
		s, err := spawn(ctx, name, socket, argv...)
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	return list, nil
}

// ours starts `bench serve` on a new disk in dir. With counting, the three peers are attached and count.
func ours(ctx context.Context, dir, name string, size int64, counting bool) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// A socket of ours is made only where nobody else can come in.
	socket := filepath.Join(dir, name+".d", "socket")
	cmd := []string{self, "serve", "-dir", filepath.Join(dir, name), "-socket", socket, "-bytes", strconv.FormatInt(size, 10)}
	if counting {
		cmd = append(cmd, "-counting")
	}
	cmd = append(cmd, "-profile", profileOf(name))
	return spawn(ctx, name, socket, cmd...)
}

// profileOf is where a process of ours leaves its CPU profile: nowhere, unless BENCH_PROFILE names a folder.
func profileOf(name string) string {
	if dir := os.Getenv("BENCH_PROFILE"); dir != "" {
		return filepath.Join(dir, name+".pprof")
	}
	return ""
}

func stopAll(list []*server) {
	for _, s := range list {
		s.stop()
	}
}

// noise is what images hold: no zeros, nothing that repeats in short.
func noise() (func(p []byte), error) {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, err
	}
	source := mathrand.NewChaCha8(seed)
	return func(p []byte) { _, _ = source.Read(p) }, nil // never fails
}

// makeImage writes a file of size bytes with no hole in it.
func makeImage(path string, size int64) error {
	fill, err := noise()
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	p := make([]byte, 1<<20)
	for left := size; left > 0; left -= int64(len(p)) {
		p = p[:min(left, int64(len(p)))]
		fill(p)
		if _, err := w.Write(p); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Sync(), f.Close())
}
