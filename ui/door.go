package ui

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"tagalong.org/tagalong/app/api"
)

// The words at the door: a second launch says knock, and the first answers shown once it has been
// told to show its window.
const (
	knock    = "show 1\n"
	shown    = "shown 1\n"
	doorTime = 5 * time.Second
)

// errShown says that another window runs already and has been brought to the front.
var errShown = errors.New("shown by the window that runs already")

// doorPath is where the window of an engine listens for second launches: beside the engine's own
// socket, so that every data directory has its own window. The name is no longer than the engine's, whose
// length is just right.
func doorPath(engineSocket string) string {
	return filepath.Join(filepath.Dir(engineSocket), "ui.sock")
}

// openDoor listens at path. When another window does already, it is shown, and errShown returned.
func openDoor(path string) (net.Listener, error) {
	l, err := api.Listen(path)
	if err == nil {
		return l, nil
	}
	if errors.Is(err, &api.Error{Code: api.CodeEngineRunning}) {
		if err := knockAt(path); err != nil {
			return nil, &api.Error{Code: api.CodeBusy, Sentence: t("door.stuck"), Next: t("door.stuck.next"), Cause: err.Error()}
		}
		return nil, errShown
	}
	return nil, err
}

func knockAt(path string) error {
	conn, err := net.DialTimeout("unix", path, doorTime)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(doorTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, knock); err != nil {
		return err
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, int64(len(shown)))).ReadString('\n')
	if err == nil && answer != shown {
		err = errors.New("an answer in another language")
	}
	return err
}

// serveDoor calls show for each second launch until ctx ends, one at a time: there is no hurry, and
// nobody can fill memory with connections.
func serveDoor(ctx context.Context, l net.Listener, log *slog.Logger, show func()) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				log.Warn("Second launches can't be heard any more", "error", err)
			}
			return
		}
		answer(conn, show)
	}
}

func answer(conn net.Conn, show func()) {
	defer func() { _ = conn.Close() }()
	if conn.SetDeadline(time.Now().Add(doorTime)) != nil {
		return
	}
	word, err := bufio.NewReader(io.LimitReader(conn, int64(len(knock)))).ReadString('\n')
	if err != nil || word != knock {
		return
	}
	show()
	// Whether it is read makes no difference here.
	_, _ = io.WriteString(conn, shown)
}
