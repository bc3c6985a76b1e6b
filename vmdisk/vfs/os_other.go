//go:build !linux

package vfs

// Where holes can't be asked for, everything counts as data: correct, only slower.

func (o *osFile) Sync() error                       { return full(o.f.Sync()) }
func (o *osFile) ZeroRange(off, n int64) error      { return writeZeros(o, off, n) }
func (o *osFile) Punch(off, n int64) error          { return writeZeros(o, off, n) }
func (o *osFile) NextData(off int64) (int64, error) { return off, nil }
func (o *osFile) NextHole(int64) (int64, error)     { return o.Size() }
func (o *osFile) Allocated() (int64, error)         { return o.Size() }
