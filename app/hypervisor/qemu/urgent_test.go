package qemu

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"tagalong.org/tagalong/app/hypervisor/qmp"
)

// TestUrgentBehindQuestionsWithoutAnswer: a QEMU that waits, for a page or a disk, answers nobody; however often it was asked meanwhile, it hears what is
// urgent, as what ends its waiting is.
func TestUrgentBehindQuestionsWithoutAnswer(t *testing.T) {
	ctx := testContext(t)
	g := start(t, ctx, &QEMU{Accel: "tcg"}, testConfig(t), true).(*guest)
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := silent.(*net.UnixListener).SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	node := blockdev("silent", silent.Addr().String())
	delete(node, "open-timeout")
	delete(node, "reconnect-delay")
	opened := make(chan error, 1)
	go func() { opened <- g.qmp.Do(ctx, "blockdev-add", node, nil) }()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 12 {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		if _, err := g.State(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it waits for its disk: %v", err)
		}
		cancel()
	}
	var refused *qmp.CommandError
	if err := g.qmp.DoUrgent(ctx, "migrate-recover", map[string]any{"uri": "unix:" + memorySocket(g.cfg.Dir)}, nil); !errors.As(err, &refused) {
		t.Errorf("what is urgent: %v", err)
	}
	conn.Close()
	if err := <-opened; !errors.As(err, &refused) {
		t.Errorf("the disk that nobody serves: %v", err)
	}
	if _, err := g.State(ctx); err != nil {
		t.Errorf("after the waiting: %v", err)
	}
}
