//go:build unix

package qmp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pipePeer is a scripted QEMU behind a pair of pipes, as its character device "pipe" opens them. It answers each line by its ID, and says in what came.
func pipePeer(t *testing.T, path string, said chan<- string) {
	t.Helper()
	if err := MakePipes(path); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(path+".in", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(path+".out", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(out, `{"QMP":{"version":{},"capabilities":["oob"]}}`)
	done := make(chan struct{})
	go func() {
		defer close(done)
		prepared := false
		for lines := bufio.NewScanner(in); lines.Scan() && lines.Text() != "end"; {
			_, id, _ := strings.Cut(lines.Text(), `"id":`)
			id, _, _ = strings.Cut(strings.TrimSuffix(id, "}"), ",")
			switch {
			case !strings.Contains(lines.Text(), "qmp_capabilities"):
				fmt.Fprintf(out, "{\"event\":\"STOP\"}\n{\"return\":{},\"id\":%s}\n", id)
			case prepared:
				fmt.Fprintf(out, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"complete\"},\"id\":%s}\n", id)
			default:
				prepared = true
				fmt.Fprintf(out, "{\"return\":{},\"id\":%s}\n", id)
			}
			said <- lines.Text()
		}
	}()
	t.Cleanup(func() { fmt.Fprintln(in, "end"); <-done; in.Close(); out.Close() })
}

// A session on pipes goes on with the next client, though the one before left half a line in it.
func TestASessionIsTakenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "urgent")
	said := make(chan string, 8)
	pipePeer(t, path, said)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for range 2 {
		c, err := TakeUp(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		if line := <-said; !strings.Contains(line, `"execute":"qmp_capabilities"`) || !strings.Contains(line, `"oob"`) {
			t.Errorf("it prepared by %s", line)
		}
		if err := c.DoUrgent(ctx, "migrate-recover", map[string]any{"uri": "x"}, nil); err != nil {
			t.Fatal(err)
		}
		if line := <-said; !strings.Contains(line, `"exec-oob":"migrate-recover"`) {
			t.Errorf("it was asked by %s", line)
		}
		if err := c.DoFile(ctx, "getfd", nil, os.Stdin); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a file over a pipe: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		left, err := os.OpenFile(path+".out", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(left, `rn":{},"id":7}`)
		left.Close()
	}
}

func TestThereIsNoSession(t *testing.T) {
	path := filepath.Join(t.TempDir(), "urgent")
	if _, err := TakeUp(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no pipes: %v", err)
	}
	for _, name := range []string{path + ".in", path + ".out"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := TakeUp(path); err == nil {
		t.Error("files were taken for pipes")
	}
	if err := MakePipes(path); err != nil {
		t.Fatal(err)
	}
	c, err := TakeUp(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
