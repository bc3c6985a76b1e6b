package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/vmdisk"
)

// benchPush measures what a push sends of 1 % scattered 4 KiB writes over a home's uplink, how well it uses that, and what that costs who needs a block
// at the same time.
func benchPush(ctx context.Context, s settings) (err error) {
	net, err := lab.NewSites(ctx, lab.WAN{Rate: 1e9, RoundTrip: lab.HomeWAN.RoundTrip, Queue: 16 << 20},
		lab.Site{Name: "home", Hosts: []string{"desk"}}, lab.Site{Name: "office", Hosts: []string{"laptop"}})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := net.Close(); err == nil {
			err = cerr
		}
	}()
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	desk, laptop := net.Host("desk"), net.Host("laptop")
	peer, at, err := announce("pushpeer", laptop.Command(ctx, self, "pushpeer", "-dir", filepath.Join(dir, "peer"), "-at", laptop.Addr().String()))
	if err != nil {
		return err
	}
	defer peer.stop()
	owner, _, err := announce("pushowner", desk.Command(ctx, self, "pushowner", "-dir", filepath.Join(dir, "owner"), "-at", desk.Addr().String(),
		"-bytes", strconv.FormatInt(s.size, 10), "-peer", at))
	if err != nil {
		return err
	}
	defer owner.stop()
	if _, err := tell(owner, orderPush, 0); err != nil {
		return fmt.Errorf("first copy: %w", err)
	}
	link := net.Link("home", "office")
	if err := link.Shape(ctx, lab.HomeWAN); err != nil {
		return err
	}
	b := pushBench{owner: owner, peer: peer, link: link, blocks: s.size / vmdisk.Block / 100}
	if b.idle, err = b.asked(ctx, idleAsks); err != nil {
		return err
	}
	b.rsync = newRsync(filepath.Join(dir, "owner", "disk", "base.raw"), filepath.Join(dir, "rsync.raw"))
	for _, c := range []pushCell{{"push/exact", false, 1.01}, {"push/sums", true, 1.10}} {
		if !strings.Contains(c.name, s.only) {
			continue
		}
		if err := b.measure(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

const (
	idleAsks = 20
	askEvery = 300 * time.Millisecond
)

// pushCell is one way to push.
type pushCell struct {
	name    string
	blindly bool
	most    float64
}

// pushBench is what a push is measured with.
type pushBench struct {
	owner, peer *server
	link        *lab.Link
	blocks      int64           // that are written before each push
	idle        []time.Duration // what a block takes that is asked for on an idle link
	rsync       *rsync
}

// asked asks for n blocks, one after another, or until ctx ends.
func (b *pushBench) asked(ctx context.Context, n int) (took []time.Duration, err error) {
	for range n {
		if _, err := fmt.Fprintln(b.peer.stdin); err != nil {
			return nil, err
		}
		line, err := b.peer.stdout.ReadString('\n')
		if err != nil {
			return nil, err
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Duration(seconds*float64(time.Second)))
		select {
		case <-ctx.Done():
			return took, nil
		case <-time.After(askEvery):
		}
	}
	return took, nil
}

// measure writes and pushes once, while somebody asks for a block now and then.
func (b *pushBench) measure(ctx context.Context, c pushCell) error {
	if err := b.rsync.before(ctx); err != nil {
		return err
	}
	if _, err := tell(b.owner, orderScatter, b.blocks); err != nil {
		return err
	}
	theirs, err := b.rsync.after(ctx)
	if err != nil {
		return err
	}
	how := int64(0)
	if c.blindly {
		how = 1
	}
	there, back := b.link.Carried("home"), b.link.Carried("office")
	asking, stop := context.WithCancel(ctx)
	var took []time.Duration
	var askErr error
	var wg sync.WaitGroup
	wg.Go(func() { took, askErr = b.asked(asking, math.MaxInt) })
	got, err := tell(b.owner, orderPush, how)
	there, back = b.link.Carried("home")-there, b.link.Carried("office")-back
	stop()
	wg.Wait()
	if err = errors.Join(err, askErr); err != nil {
		return err
	}
	changed := float64(b.blocks * vmdisk.Block)
	fmt.Printf("%s ratio=%.4f bytes=%d changed=%.0f content=%d onlink=%d back=%d peer=rsync theirratio=%.4f theirs=%d most=%g\n",
		c.name, float64(got.bytes)/changed, got.bytes, changed, got.content, there, back, float64(theirs)/changed, theirs, c.most)
	// A packet has 1448 bytes for TCP's users.
	ceiling := float64(lab.HomeWAN.Rate) * 1448 / 1500
	rate := float64(got.sent+int64(len(took))*vmdisk.Block) * 8 / got.seconds
	fmt.Printf("%s-use ratio=%.3f bits=%.0f ceiling=%.0f unit=bit/s onlink=%.3f seconds=%.1f aim=0.95\n",
		c.name, rate/ceiling, rate, ceiling, float64(there)*8/got.seconds/float64(lab.HomeWAN.Rate), got.seconds)
	slices.Sort(took)
	slices.Sort(b.idle)
	idle, busy := b.idle[len(b.idle)/2], took[len(took)/2]
	fmt.Printf("%s-ask ratio=%.2f ours=%.1f idle=%.1f unit=ms p90=%.1f asks=%d most=1.6\n",
		c.name, float64(busy)/float64(idle), ms(busy), ms(idle), ms(took[len(took)*9/10]), len(took))
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// toldPush is what a pusher answers.
type toldPush struct {
	bytes, sent, content int64 // over the stream both ways, there, and of the disk
	seconds              float64
}

// tell gives a pusher an order, and waits until it is carried out.
func tell(owner *server, order string, n int64) (t toldPush, err error) {
	if _, err := fmt.Fprintln(owner.stdin, order, n); err != nil {
		return t, err
	}
	line, err := bufio.NewReader(owner.stdout).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &t.bytes, &t.sent, &t.content, &t.seconds)
	}
	if err != nil {
		return t, fmt.Errorf("%s: %q: %w", order, line, err)
	}
	return t, nil
}
