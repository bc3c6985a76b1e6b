package qemu

import "os"

// claim does nothing: a process can't be handed a lock here. One that an engine had only begun to start when it died isn't found.
func claim(string) (*os.File, error) { return nil, nil }

func claimed(string) bool { return false }
