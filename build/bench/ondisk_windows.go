package main

import "os"

// onDisk is a file's length, in bytes: what it takes isn't told here.
func onDisk(path string) (int64, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
