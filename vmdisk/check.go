package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"

	"tagalong.org/tagalong/vmdisk/vfs"
)

// CheckOptions say how to check a disk. The zero value checks everything and changes nothing.
type CheckOptions struct {
	// Scrub says how the content is read. With Scrub.Record the disk is opened for it, which puts right what a crash left behind.
	Scrub ScrubOptions
	// Clear takes the mark "needs checking" away if nothing is wrong.
	Clear bool
	// FS holds the disk's files; nil is the directory itself. Log gets what happens; nil is silence. For a closed disk only.
	FS  vfs.FS
	Log *slog.Logger
}

// Finding is one thing to tell the person.
type Finding struct {
	// File is the file's name in the disk's directory, Text a sentence about it, Next what to do, or nothing.
	File, Text, Next string
	// Err is the error behind it, or nil.
	Err error
}

// Report is what a check found.
type Report struct {
	ID       ID
	Size     int64 // bytes
	Position Position
	// NeedsCheck is why the disk was marked, if it was; Cleared says that it isn't any more.
	NeedsCheck string
	Cleared    bool
	// Formats are the versions of the files that have one.
	Formats []FileFormat
	// Findings is what is wrong, the content last. Notes are worth knowing, but nothing is wrong.
	Findings, Notes []Finding
	// Content is what reading the disk found; nothing if it wasn't read.
	Content Scrub
}

// OK says that nothing is wrong.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// FileFormat is the version of a file.
type FileFormat struct {
	File    string
	Version uint32
	Name    string // of the version
}

func (r *Report) wrong(file, text, next string, err error) {
	r.Findings = append(r.Findings, Finding{file, text, next, err})
}

func (r *Report) note(file, text, next string) {
	r.Notes = append(r.Notes, Finding{file, text, next, nil})
}

const (
	nextReplace  = "If another device has a whole copy, take it from there: remove this one and let it be copied here again. Otherwise copy base.raw away before you try anything."
	nextContent  = "If another device has a whole copy, compare or take it from there. If what is there is right after all, delete the file hashes while the disk is closed, and record anew."
	nextDrive    = "The drive may be failing: copy what you need away, and look into the system's log."
	nextNewer    = "Use the version of Tagalong that wrote it, or a later one."
	nextNoDirty  = "Delete it while the disk is closed: the peer then gets everything again, which is only slow."
	nextNoHashes = "Check with --record (Scrub.Record): that makes new ones of the content as it is."
)

// Check checks the closed disk in dir: all its metadata, and its content against the hashes that were recorded. It holds the
// disk's lock, and it writes nothing unless Clear or Scrub.Record ask for it. What is wrong with the disk is in the report. An error
// says that it couldn't be checked: ErrNoDisk, ErrNotDir, ErrInUse, fs.ErrPermission, that of ctx; the report has what was found until then.
func Check(ctx context.Context, dir string, o CheckOptions) (*Report, error) {
	oo := Options{FS: o.FS, Log: o.Log, BarrierEvery: -1, SaveEvery: -1}.withDefaults(dir)
	r := &Report{}
	if err := check(ctx, dir, oo, o, r); err != nil {
		return r, fmt.Errorf("check disk in %s: %w", dir, err)
	}
	return r, nil
}

func check(ctx context.Context, dir string, oo Options, o CheckOptions, r *Report) (err error) {
	ro := vfs.ReadOnly(oo.FS)
	if err := findDisk(ro); err != nil {
		return err
	}
	lock, err := takeLock(ro)
	if err != nil {
		return err
	}
	release := lock.Close
	defer func() { err = errors.Join(err, release()) }()
	d := &Store{fs: ro, log: oo.Log, lock: io.NopCloser(nil), space: &space{fs: ro}, looking: true}
	defer func() { err = errors.Join(err, d.release()) }()
	whole := d.checkFiles(r)
	if d.stack.base == nil || !whole || !o.Scrub.Record {
		if d.stack.base != nil && d.hashes != nil && d.complete {
			err = d.checkContent(ctx, o.Scrub, r)
		}
		if err != nil || !r.OK() || !o.Clear || !d.complete || r.NeedsCheck == "" {
			return err
		}
	}
	// Now it is to be written. The lock may have been taken without the right to write.
	release = func() error { return nil }
	if err := lock.Close(); err != nil {
		return err
	}
	s, err := Open(dir, oo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if o.Scrub.Record && s.Info().Complete {
		if err := s.checkContent(ctx, o.Scrub, r); err != nil {
			return err
		}
	}
	return s.clear(o, r, 0)
}

// Check is Check for a disk that is open: the guest may go on writing. The file that peers' writes are collected in (epochs) is
// in use then, and isn't read.
func (d *Store) Check(ctx context.Context, o CheckOptions) (*Report, error) {
	r := &Report{}
	if err := d.check(ctx, o, r); err != nil {
		return r, fmt.Errorf("check disk: %w", err)
	}
	return r, nil
}

func (d *Store) check(ctx context.Context, o CheckOptions, r *Report) error {
	d.mu.Lock()
	troubles, final, unapplied, closed := d.troubles, d.err, d.unapplied, d.closed
	r.ID, r.Size, r.Position, r.NeedsCheck = d.id, d.Size(), d.position, d.doubt
	complete := d.complete
	d.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if final != nil {
		r.wrong("", fmt.Sprintf("The disk refuses to work since an error: %v.", final), "End what uses the disk and start it again; then check again.", final)
	}
	if unapplied != nil {
		r.wrong(baseName, fmt.Sprintf("What was received can't be applied: %v.", unapplied), "Free some space if the disk is full, and open the disk again.", unapplied)
	}
	names, err := d.fs.List()
	if err != nil {
		return err
	}
	d.nameFiles(names, r)
	// Some systems don't replace a file while somebody looks into it.
	d.saveMu.Lock()
	d.j.syncMu.Lock()
	d.formats(names, r)
	d.j.syncMu.Unlock()
	d.saveMu.Unlock()
	if err := d.j.verify(); err != nil {
		r.wrong(journalName, "The journal on the drive isn't what it must be.", nextReplace, err)
	}
	d.role.Lock() // so that the disk isn't growing
	n, err := d.stack.base.Size()
	size := d.Size()
	d.role.Unlock()
	if err != nil || n != size {
		r.wrong(baseName, fmt.Sprintf("The file has %d bytes instead of %d: something else changed it.", n, size), nextReplace, errors.Join(err, ErrBaseSize))
	}
	d.checkSets(names, r)
	if !complete {
		r.note(baseName, "The first copy of the disk hasn't ended, so there is no content to check.", "")
		return nil
	}
	if err := d.checkContent(ctx, o.Scrub, r); err != nil {
		return err
	}
	return d.clear(o, r, troubles)
}

// clear takes the mark away if that is wanted and nothing is wrong.
func (d *Store) clear(o CheckOptions, r *Report, troubles uint64) error {
	if !o.Clear || r.NeedsCheck == "" || !r.OK() {
		return nil
	}
	if err := d.unmark(troubles); err != nil {
		return err
	}
	r.Cleared = true
	return nil
}

// checkContent reads the disk through.
func (d *Store) checkContent(ctx context.Context, o ScrubOptions, r *Report) (err error) {
	r.Content, err = d.Scrub(ctx, o)
	for i, b := range r.Content.Damaged {
		if i == maxFindings {
			rest := r.Content.MoreDamaged
			for _, b := range r.Content.Damaged[i:] {
				rest += b.Len
			}
			r.wrong(baseName, fmt.Sprintf("%d more bytes are damaged, in further places.", rest), "", nil)
			break
		}
		if b.Err != nil {
			r.wrong(baseName, fmt.Sprintf("%d bytes at byte %d can't be read: %v.", b.Len, b.Off, b.Err), nextDrive, b.Err)
			continue
		}
		r.wrong(baseName, fmt.Sprintf("%d bytes at byte %d aren't what they were when their hash was recorded.", b.Len, b.Off), nextContent, ErrCorrupt)
	}
	if r.Content.Torn > 0 {
		r.note(hashesName, fmt.Sprintf("The recorded hashes of %d regions can't be read; a crash may have left them so.", r.Content.Torn), nextNoHashes)
	}
	if e := r.Content.Unrecorded; e != nil {
		r.note(hashesName, fmt.Sprintf("There was no room to record hashes: %v.", e), "Free some space and record again.")
	}
	return err
}

// maxFindings bounds the findings of the content; the report has more of them in Content.
const maxFindings = 100

// explain adds the finding for a file that can't be used. Errors that say nothing of the disk itself come back.
func (r *Report) explain(file string, err error) error {
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrPermission):
		return err
	case errors.Is(err, ErrVersion):
		r.wrong(file, fmt.Sprintf("The file was written by a newer version of Tagalong: %v.", err), nextNewer, err)
	case errors.Is(err, ErrNoJournal):
		r.wrong(file, "The journal is missing.", "base.raw is a plain disk image: make a new disk of it.", err)
	case errors.Is(err, ErrNoBase):
		r.wrong(file, "The file is missing: the content of the disk.", "If it was moved away, move it back. Otherwise remove the disk and let it be copied here again.", err)
	case errors.Is(err, ErrBaseSize):
		r.wrong(file, fmt.Sprintf("The file isn't as long as the disk: %v.", err), nextReplace, err)
	case errors.Is(err, ErrNotFile):
		r.wrong(file, fmt.Sprintf("There is something else than a plain file: %v.", err), "Put the file itself there.", err)
	case errors.Is(err, ErrForeign):
		r.wrong(file, fmt.Sprintf("The file is damaged, or another program's: %v.", err), nextReplace, err)
	default:
		r.wrong(file, fmt.Sprintf("The file is damaged or can't be read: %v.", err), nextReplace, err)
	}
	return nil
}

// verify reads the journal's file and makes sure that it says what is in memory.
func (j *journal) verify() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	b, err := readAll(j.f, math.MaxInt32)
	if err != nil {
		return fmt.Errorf("%s: %w", journalName, err)
	}
	_, st, err := parseJournal(b)
	if err == nil && !st.equal(j.st) {
		err = fmt.Errorf("%s: it says something else than it said: %w", journalName, ErrCorrupt)
	}
	return err
}
