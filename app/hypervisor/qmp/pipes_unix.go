//go:build unix

package qmp

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// pipes is a pair of named pipes.
type pipes struct{ in, out *os.File }

// MakePipes makes the pair of named pipes path.in and path.out, new ones in any case.
func MakePipes(path string) error {
	for _, name := range []string{path + ".in", path + ".out"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := syscall.Mkfifo(name, 0o600); err != nil {
			return &os.PathError{Op: "mkfifo", Path: name, Err: err}
		}
	}
	return nil
}

// openPipes opens the other ends of what QEMU reads and writes. Opened for both, a pipe neither waits for another end nor ends with it.
func openPipes(path string) (*pipes, error) {
	in, err := openPipe(path + ".in")
	if err != nil {
		return nil, err
	}
	out, err := openPipe(path + ".out")
	if err != nil {
		_ = in.Close()
		return nil, err
	}
	return &pipes{in, out}, nil
}

func openPipe(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		_ = f.Close()
		return nil, errors.Join(err, &os.PathError{Op: "open", Path: name, Err: errors.New("not a named pipe")})
	}
	return f, nil
}

func (p *pipes) Read(b []byte) (int, error)         { return p.out.Read(b) }
func (p *pipes) Write(b []byte) (int, error)        { return p.in.Write(b) }
func (p *pipes) SetWriteDeadline(t time.Time) error { return p.in.SetWriteDeadline(t) }
func (p *pipes) Close() error                       { return errors.Join(p.in.Close(), p.out.Close()) }
