package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/app/hypervisor"
)

// A guest that could go ahead and didn't has all of its memory at the giver still, but its QEMU comes to an end only when the taker's says that it has
// everything. If nobody carries the stream any more, the engine stands in for that: it offers itself as the taker with which to take a broken
// teleport up again, and says that it has every page.

// CallBack implements hypervisor.PostCopier.
func (g *guest) CallBack(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("qemu: call back a guest that could go ahead: %w", err)
		}
	}()
	blocks, err := g.memoryBlocks(ctx)
	if err != nil {
		return err
	}
	stream, err := g.SendRest(ctx)
	if err != nil {
		return err
	}
	held := &heldStream{weighed: stream.(weighed)}
	defer held.sever()
	stop := context.AfterFunc(ctx, held.sever)
	defer stop()
	if err := standIn(held.weighed, blocks); err != nil {
		return err
	}
	var drained sync.WaitGroup
	drained.Go(held.drain)
	err = g.complete(ctx, held)
	held.sever()
	drained.Wait()
	return err
}

// complete has a QEMU that sends to nobody come to its end: when it has sent all, it is told that all has arrived. held is being drained.
func (g *guest) complete(ctx context.Context, held *heldStream) error {
	for said := false; ; {
		m, err := g.migration(ctx)
		if err != nil {
			return err
		}
		switch m.Status {
		case "completed", "failed", "cancelled":
			return nil
		case "postcopy-active":
			// Told before it has sent all, it would take that for a broken line.
			if !said && m.RAM.Remaining == 0 && held.drained() {
				said = true
				held.say(arrived)
			}
		case "postcopy-paused":
			return fmt.Errorf("%w: it is %q", hypervisor.ErrApart, m.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is %q: %w", m.Status, ctx.Err())
		case <-time.After(lookAgain):
		}
	}
}

// memoryBlocks are the blocks of QEMU's memory and how much of each is used, in bytes.
func (g *guest) memoryBlocks(ctx context.Context) (map[string]uint64, error) {
	var text string
	if err := g.qmp.Do(ctx, "human-monitor-command", map[string]any{"command-line": "info ramblock"}, &text); err != nil {
		return nil, err
	}
	return parseBlocks(text)
}

// errBlocks says that QEMU's table of its memory reads otherwise than it did.
var errBlocks = errors.New("qemu: its blocks of memory can't be read")

// parseBlocks reads what "info ramblock" prints: a line of titles, then name, page size (a number and a unit), offset, used and total of each block.
func parseBlocks(text string) (map[string]uint64, error) {
	blocks := map[string]uint64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || f[0] == "Block" {
			continue
		}
		used, err := strconv.ParseUint(f[4], 0, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: %q", errBlocks, line)
		}
		blocks[f[0]] = used
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%w: there are none", errBlocks)
	}
	return blocks, nil
}

// What a QEMU sends that takes a teleport up again: commands, each a byte, its number and the length of what follows, both two bytes.
const (
	command       = 0x08
	commandResume = 9  // every block was asked for; it waits for the word to go on
	commandBitmap = 10 // it asks which pages of a block have arrived: length of the name, one byte, and the name
)

// What it is answered, beside what heldstream.go has.
const (
	messageBitmap = 5 // the block's name as it was asked; behind the message follows the bitmap
	messageResume = 6 // go on
	resumeWord    = 1
	bitmapEnd     = 0x0123456789abcdef // behind a bitmap
	pageSize      = 4096
)

// maxBlock bounds a bitmap: one for 8 TiB.
const maxBlock = 8 << 40

// standIn speaks as a taker's QEMU that has every page of the memory, until the giver's goes on. It reads no further than that.
func standIn(line io.ReadWriter, blocks map[string]uint64) error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(line, head[:]); err != nil {
			return fmt.Errorf("read what it asks: %w", err)
		}
		if head[0] != command {
			return fmt.Errorf("%w: it sends %#x", hypervisor.ErrApart, head[0])
		}
		said := make([]byte, binary.BigEndian.Uint16(head[3:]))
		if _, err := io.ReadFull(line, said); err != nil {
			return fmt.Errorf("read what it asks: %w", err)
		}
		switch n := binary.BigEndian.Uint16(head[1:]); {
		case n == commandResume:
			_, err := line.Write([]byte{0, messageResume, 0, 4, 0, 0, 0, resumeWord})
			return err
		case n == commandBitmap && len(said) > 1 && int(said[0]) == len(said)-1:
			used, known := blocks[string(said[1:])]
			if !known || used > maxBlock {
				return fmt.Errorf("%w: it asks for a block %q of %d bytes", hypervisor.ErrApart, said[1:], used)
			}
			if _, err := line.Write(allArrived(said, used)); err != nil {
				return fmt.Errorf("answer what has arrived: %w", err)
			}
		default:
			return fmt.Errorf("%w: it sends command %d with %d bytes", hypervisor.ErrApart, n, len(said))
		}
	}
}

// allArrived says that all pages of a block have. name is as it was asked.
func allArrived(name []byte, used uint64) []byte {
	size := (used/pageSize + 63) / 64 * 8
	b := []byte{0, messageBitmap}
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint64(b, size)
	b = append(b, bytes.Repeat([]byte{0xff}, int(size))...)
	return binary.BigEndian.AppendUint64(b, bitmapEnd)
}
