package vmdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// format is one kind of what this package stores or sends: 8 bytes that it begins with, a u32 version, and from there on what
// FORMAT.md says. All formats of all versions are in this file. Older versions are read, and become the newest when they are
// stored again; newer ones are refused. testdata has a disk of each old version, and a test opens them.
type format struct {
	name  string
	magic string
	// rungs are the names of the versions, from 1 on. A released rung never changes.
	rungs []string
}

// The ladder. A version's name is that of the release or of the work that brought it.
var (
	journalFormat = format{journalName, "TAGJRNL\n", []string{"first light", "the disk", "growth"}}
	epochsFormat  = format{epochsName, "TAGEPCH\n", []string{"first light", "replication"}}
	dirtyFormat   = format{"dirty set", "TAGDIRT\n", []string{"first light", "the disk"}}
	exportFormat  = format{"dirty export", "TAGSETS\n", []string{"first light", "the disk"}}
	staleFormat   = format{"stale set", "TAGSTAL\n", []string{"the disk"}}
	hashesFormat  = format{"hashes", "TAGHASH\n", []string{"the disk"}}
)

// journalKinds is the highest kind of record that a journal of each version has.
var journalKinds = []byte{0, recReplica, recStale, recGrowing}

// newest is the version that is written.
func (f format) newest() uint32 { return uint32(len(f.rungs)) }

// Formats are the versions of what is kept in a disk's directory, by name: those that this program writes. A disk that is open
// has no older ones.
func Formats() map[string]int {
	out := map[string]int{}
	for _, f := range []format{journalFormat, epochsFormat, dirtyFormat, staleFormat, hashesFormat} {
		out[f.name] = int(f.newest())
	}
	return out
}

// begin appends the magic number, the newest version and a u32 of zero.
func (f format) begin(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(append(b, f.magic...), uint64(f.newest()))
}

// version reads what begin wrote, at the beginning of b. Errors: ErrForeign; ErrVersion, which says both versions.
func (f format) version(b []byte) (uint32, error) {
	if len(b) < 16 || string(b[:8]) != f.magic {
		return 0, ErrForeign
	}
	v := binary.LittleEndian.Uint32(b[8:])
	if v == 0 {
		return 0, ErrForeign
	}
	if v > f.newest() {
		return v, fmt.Errorf("version %d, this program knows up to %d: %w", v, f.newest(), ErrVersion)
	}
	return v, nil
}

// formatOf is the format of a disk's file, by its name.
func formatOf(name string) (f format, ok bool) {
	switch {
	case name == journalName:
		return journalFormat, true
	case name == epochsName:
		return epochsFormat, true
	case name == hashesName:
		return hashesFormat, true
	case strings.HasPrefix(name, dirtyPrefix) && !strings.HasSuffix(name, vfs.TempSuffix):
		return dirtyFormat, true
	case strings.HasPrefix(name, stalePrefix) && !strings.HasSuffix(name, vfs.TempSuffix):
		return staleFormat, true
	}
	return format{}, false
}

// refuseNewer makes sure that no file is of a newer version, before anything of the disk is changed. What is wrong otherwise is
// found by who reads the file.
func refuseNewer(fsys vfs.FS, names []string) error {
	for _, name := range names {
		want, ok := formatOf(name)
		if !ok {
			continue
		}
		f, err := fsys.Open(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		head := make([]byte, 16)
		n, err := f.ReadAt(head, 0)
		if err = errors.Join(ended(err), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := want.version(head[:n]); errors.Is(err, ErrVersion) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
