package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"tagalong.org/tagalong/app/postal"
	"tagalong.org/tagalong/p2p/push"
	"tagalong.org/tagalong/vmdisk"
)

// table31 is what a desktop wrote in ten times five minutes, in bytes a second (Kim's thesis, table 3.1: its blocks have 512 bytes).
var table31 = [...]float64{45.21 * 512, 805.79 * 512, 897.97 * 512, 2880.57 * 512, 1831.92 * 512, 610.17 * 512, 60.18 * 512, 26.50 * 512, 1405.49 * 512, 321.82 * 512}

const (
	interval = 5 * time.Minute
	workday  = 8 * time.Hour // at the table's rates, again and again; then its calmest interval's until the next morning
	wholeDay = 24 * time.Hour
	// hotPart of what is written overwrites hotBytes: a file system's journal, swap, a browser's cache. The rest goes anywhere, 64 KiB at a time.
	hotPart  = 0.8
	hotBytes = 64 << 20
	dayLine  = 7e6 / 8 * 1448 / 1500 // bytes a second
)

// benchDay replays a day's writes in time lapse, and reports what was pushed of them.
func benchDay(ctx context.Context, s settings) error {
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	peer, at, err := announced(ctx, "pushpeer", self, "pushpeer", "-dir", filepath.Join(dir, "peer"))
	if err != nil {
		return err
	}
	defer peer.stop()
	owner, _, err := announced(ctx, "pushowner", self, "pushowner", "-dir", filepath.Join(dir, "owner"), "-bytes", strconv.FormatInt(s.size, 10), "-peer", at)
	if err != nil {
		return err
	}
	defer owner.stop()
	if _, err := tell(owner, orderPush, 0); err != nil {
		return fmt.Errorf("first copy: %w", err)
	}
	if _, err := fmt.Fprintln(owner.stdin, orderDay, 0); err != nil {
		return err
	}
	line, err := owner.stdout.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the day ended early: %w", err)
	}
	var d dayTold
	if _, err := fmt.Sscan(line, &d.wrote, &d.different, &d.sent, &d.content, &d.pushes, &d.behind); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	fmt.Printf("push/day ratio=%.3f sent=%d wrote=%d content=%d different=%d pushes=%d hot=%g@%dMiB unit=bytes\n",
		float64(d.sent)/float64(d.wrote), d.sent, d.wrote, d.content, d.different, d.pushes, hotPart, hotBytes>>20)
	fmt.Printf("push/day-behind longest=%.0f unit=s line=%.0f bytes/s, overdue at %.0f s\n", d.behind, dayLine, postal.Usual.Overdue.Seconds())
	return nil
}

// dayTold is what a day came to, in bytes; different is of the blocks that were written, each counted once.
type dayTold struct {
	wrote, different, sent, content int64
	pushes                          int
	behind                          float64 // how old what is there was at most, in seconds
}

// day writes a day's writes, in the time that it says it is, and pushes when the scheduler says so. A push is carried out at once, and takes the time that the line
// needs for what it sent: what is written meanwhile is of the next one, as it is when a cut is pushed.
func (o *pusher) day(ctx context.Context, out io.Writer) error {
	var told dayTold
	machine := postal.New(postal.Usual)
	at := postal.Position(o.disk.Position())
	there := at // a whole copy
	written, seen := at, map[int64]struct{}{}
	var busy, cutAt, thereAt time.Duration // the push lasts until busy; when its cut was taken, and the one that is there
	var result *postal.Position
	p := make([]byte, 64<<10)
	fill, err := noise()
	if err != nil {
		return err
	}
	owed := 0.0
	for now := time.Duration(0); now < wholeDay; now += time.Second {
		rate := table31[7]
		if now < workday {
			rate = table31[now/interval%time.Duration(len(table31))]
		}
		for owed += rate; owed >= vmdisk.Block; {
			n, off := o.place(p)
			n = min(n, int64(owed)/vmdisk.Block*vmdisk.Block)
			fill(p[:n])
			if err := o.disk.WriteAt(p[:n], off, false); err != nil {
				return err
			}
			owed -= float64(n)
			told.wrote += n
			for x := off / vmdisk.Block; x < (off+n)/vmdisk.Block; x++ {
				seen[x] = struct{}{}
			}
		}
		if now%(5*time.Second) == 0 { // as a guest's file system does
			if err := o.disk.Flush(); err != nil {
				return err
			}
		}
		written = postal.Position(o.disk.Position())
		told.behind = max(told.behind, (now - thereAt).Seconds())
		if result != nil && now >= busy {
			there, thereAt = *result, cutAt
			machine.Ended("day", o.peer, now, postal.Result{Reached: there})
			result = nil
		}
		orders, _ := machine.Tick(postal.Input{
			Now: now, Self: "here", Acting: true,
			Devices: []postal.Device{{ID: o.peer, Site: "far", Post: true, Connected: true}},
			VMs:     []postal.VM{{ID: "day", Owner: "here", At: written, Mirrored: true, May: true, Fed: map[string]bool{}, Told: map[string]postal.Position{o.peer: there}}},
		})
		for _, order := range orders {
			if order.Stop {
				continue
			}
			var stats push.Stats
			if err := o.push(ctx, false, &stats); err != nil {
				return err
			}
			cutAt = now
			reached := postal.Position(o.disk.Position())
			result = &reached
			sent := stats.Sent.Load()
			busy = now + time.Duration(float64(sent)/dayLine*float64(time.Second))
			told.sent, told.content, told.pushes = told.sent+sent+stats.Received.Load(), told.content+stats.Content.Load(), told.pushes+1
		}
	}
	told.different = int64(len(seen)) * vmdisk.Block
	_, err = fmt.Fprintln(out, told.wrote, told.different, told.sent, told.content, told.pushes, told.behind)
	return err
}

// place is where the guest writes next, and how much.
func (o *pusher) place(p []byte) (n, off int64) {
	blocks := o.disk.Size() / vmdisk.Block
	// So many blocks are written at once elsewhere.
	together := float64(len(p) / vmdisk.Block)
	if o.r.Float64() < hotPart/(hotPart+(1-hotPart)/together) {
		return vmdisk.Block, o.r.Int64N(min(hotBytes/vmdisk.Block, blocks)) * vmdisk.Block
	}
	n = int64(len(p))
	return n, o.r.Int64N(o.disk.Size()/n) * n
}
