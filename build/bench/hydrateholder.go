package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tagalong.org/tagalong/app/holders"
	"tagalong.org/tagalong/p2p"
	"tagalong.org/tagalong/p2p/fetch"
	"tagalong.org/tagalong/vmdisk"
)

// taker is what the holder of a disk calls the device that it was given to.
const taker = "taker"

// hydrateHolder is a device that has given its disk, full of noise or of an image, to another one, whose copy was still empty. It leaves that copy
// in -blank, with all that the taker was told, and lends its own as the product does. It says "ID@ADDRESS TERM BARRIER", the position of the
// hand-off, and ends when its standard input does.
func hydrateHolder(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("bench hydrateholder", flag.ExitOnError)
	dir, at := fs.String("dir", "", "for what it keeps"), fs.String("at", "127.0.0.1", "its IPv4 address")
	blank, image := fs.String("blank", "", "where to leave the taker's copy"), fs.String("image", "", "what the disk holds; nothing is noise")
	size := fs.Int64("bytes", 0, "the disk's size")
	profile := fs.String("profile", "", "file for a CPU profile of this process")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	log := warnings()
	disk, err := vmdisk.Create(filepath.Join(*dir, "disk"), vmdisk.NewID(), *size, vmdisk.Options{Reserve: reserve, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	position, err := giveAway(ctx, disk, *blank, *image)
	if err != nil {
		return err
	}
	host, err := newHostAt(*dir, *at, fleet{all: true}, log)
	if err != nil {
		return err
	}
	host.Handle(fetch.Protocol, func(ctx context.Context, s p2p.Stream) {
		var lent *holders.Lent
		err := fetch.Serve(ctx, s, func(fetch.Hello) (_ fetch.Reader, st fetch.State, err error) {
			lent, st, err = holders.Lend(ctx, disk)
			return lent, st, err
		}, nil)
		if lent != nil {
			err = errors.Join(err, lent.Close())
		}
		if err != nil {
			log.Info("A stream ended", "error", err) // with the taker's disk
		}
	})
	host.Handle(bareProtocol, func(_ context.Context, s p2p.Stream) {
		if err := swallow(s); err != nil {
			log.Warn("A bare stream ended", "error", err)
		}
	})
	host.Handle(keptProtocol, func(_ context.Context, s p2p.Stream) {
		if err := keep(s, filepath.Join(*dir, "kept")); err != nil {
			log.Warn("A stream wasn't kept", "error", err)
		}
	})
	stop, err := profiled(*profile)
	if err != nil {
		return errors.Join(err, host.Close())
	}
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx) }()
	fmt.Printf("%s@/ip4/%s/tcp/%d %d %d\n", host.ID(), *at, host.Port(), position.Term, position.Barrier)
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	<-served // its word is that of ctx
	return errors.Join(err, host.Close())
}

// keptProtocol is as bareProtocol, but what comes is stored, and read once.
const keptProtocol = "/tagalong/bench/kept/1"

// keep is the other end of it: the least that anybody does who hydrates a disk and reads it.
func keep(s p2p.Stream, file string) (err error) {
	r := bufio.NewReaderSize(s, 128<<10)
	text, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(file)) }()
	p := make([]byte, 256<<10)
	for off := int64(0); off < n; {
		got, err := io.ReadFull(r, p[:min(n-off, int64(len(p)))])
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(p[:got], off); err != nil {
			return err
		}
		if _, err := f.ReadAt(p[:got], off); err != nil {
			return err
		}
		off += int64(got)
	}
	_, err = s.Write([]byte{1})
	return err
}

// giveAway fills a new disk after another device has got an empty copy of it, and gives it to that one, which lacks all of it then.
func giveAway(ctx context.Context, d *vmdisk.Store, blank, image string) (at vmdisk.Position, err error) {
	r, err := vmdisk.CreateReplica(blank, d.ID(), d.Size(), vmdisk.Options{Reserve: reserve})
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := d.Activate(1); err != nil {
		return at, err
	}
	if err := follow(ctx, d, r); err != nil {
		return at, fmt.Errorf("an empty copy: %w", err)
	}
	if image == "" {
		err = refill(d)
	} else {
		err = pourImage(d, image)
	}
	if err == nil {
		err = d.Fence()
	}
	if err != nil {
		return at, err
	}
	at = d.Position()
	sets, err := d.ExportDirty()
	if err == nil {
		err = d.Give(1)
	}
	if err != nil {
		return at, err
	}
	stale, pos, err := r.StaleIn(sets, taker)
	if err == nil && (pos != at || len(stale) == 0) {
		err = fmt.Errorf("the copy lacks %d bytes of set at %s, and %s was given", len(stale), pos, at)
	}
	if err == nil {
		err = r.SetStale(stale, pos)
	}
	if err == nil {
		err = r.ImportDirty(sets, taker)
	}
	return at, err
}

// follow brings a copy to where its owner is, and makes it known to that.
func follow(ctx context.Context, d, r *vmdisk.Store) (err error) {
	if err := d.WriteAt(make([]byte, vmdisk.Block), 0, true); err != nil { // else there is no position to be at
		return err
	}
	a, err := r.Apply()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	f, err := d.Attach(taker, a.State())
	if err != nil {
		return err
	}
	defer f.Close()
	for r.Position() != d.Position() || f.Progress().Remaining > 0 {
		op, err := f.Next(ctx)
		if err != nil {
			return err
		}
		kind, pos := op.Kind, op.Pos
		switch kind {
		case vmdisk.OpBegin:
			err = a.Begin(op.Copy)
		case vmdisk.OpWrite:
			err = a.Write(op.Off, op.Data)
		case vmdisk.OpZero:
			err = a.Zero(op.Off, op.Len)
		case vmdisk.OpCheckpoint:
			err = a.Checkpoint(pos)
		case vmdisk.OpBarrier:
			err = a.Barrier(pos)
		}
		op.Release()
		if err != nil {
			return err
		}
		if kind == vmdisk.OpCheckpoint || kind == vmdisk.OpBarrier {
			f.Acked(pos)
		}
	}
	return nil
}

// pourImage writes a raw image to an active disk, but for what is zeros in it.
func pourImage(d *vmdisk.Store, image string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	p, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); ; off += int64(len(p)) {
		n, err := io.ReadFull(f, p)
		if n > 0 && !bytes.Equal(p[:n], zeros[:n]) {
			if err := d.WriteAt(p[:n], off, false); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return d.Flush()
		}
		if err != nil {
			return err
		}
	}
}
