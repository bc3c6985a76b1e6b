package qmp

import "errors"

// MakePipes fails: Windows has no named pipes in the file system.
func MakePipes(string) error { return errors.ErrUnsupported }

func openPipes(string) (conn, error) { return nil, errors.ErrUnsupported }
