package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tagalong.org/tagalong/build/lab"
)

// apartBytes is what a guest writes in ten minutes, for a MiB of its disk: with 512 MiB 1.2 GB in all, 2 MB/s.
const apartBytes = 600 * 4096

// resync is an owner and its peer, between which lies a line.
type resync struct {
	owner, peer *server
	socket      string
	size        int64
	beside      map[string][]float64 // what was copied beside each load, MB/s
}

// ask gives an order, and says how long it took.
func ask(to *server, order string, n int64) (bytes int64, seconds float64, err error) {
	if _, err := fmt.Fprintln(to.stdin, order, n); err != nil {
		return 0, 0, err
	}
	line, err := to.stdout.ReadString('\n')
	if err == nil {
		var same int64
		_, err = fmt.Sscan(line, &bytes, &same, &seconds)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %q: %w", order, line, err)
	}
	return bytes, seconds, nil
}

// benchResync measures a return after ten minutes apart, and a new device's first copy, against the slower of the bare line and the bare disk, in the same
// round and of as many bytes. Near is a line as fast as the computer can, shaped one of 100 Mbit/s and 1 ms. And what a first copy costs the guest, who goes
// first as in the product, and how fast that is then.
func benchResync(ctx context.Context, s settings) error {
	none := errNoCell
	switch err := besideGuest(ctx, s); {
	case err == nil:
		none = nil
	case !errors.Is(err, errNoCell):
		return fmt.Errorf("beside a guest: %w", err)
	}
	for _, line := range []struct {
		name string
		wan  lab.WAN
	}{{"near", lab.WAN{RoundTrip: 200 * time.Microsecond}}, {"shaped", lab.WAN{Rate: 100_000_000, RoundTrip: time.Millisecond}}} {
		switch err := resyncOver(ctx, s, line.name, line.wan); {
		case err == nil:
			none = nil
		case !errors.Is(err, errNoCell):
			return fmt.Errorf("%s: %w", line.name, err)
		}
	}
	return none
}

func resyncOver(ctx context.Context, s settings, name string, wan lab.WAN) (err error) {
	var r resync
	cells := r.cells(s.size, name)
	if !wanted(s, cells) {
		return errNoCell
	}
	net, err := lab.NewSites(ctx, wan, lab.Site{Name: "here", Hosts: []string{"desk"}}, lab.Site{Name: "there", Hosts: []string{"laptop"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	dir, remove, err := folder(s.scratch)
	if err != nil {
		return err
	}
	defer remove()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	desk, laptop := net.Host("desk"), net.Host("laptop")
	var at string
	r.size = s.size
	r.peer, at, err = announce("resyncpeer", laptop.Command(ctx, self, "resyncpeer", "-dir", filepath.Join(dir, "peer"), "-at", laptop.Addr().String()))
	if err != nil {
		return err
	}
	defer r.peer.stop()
	r.owner, r.socket, err = announce("resyncowner", desk.Command(ctx, self, "resyncowner", "-dir", filepath.Join(dir, "owner"), "-at", desk.Addr().String(),
		"-bytes", strconv.FormatInt(s.size, 10), "-peer", at))
	if err != nil {
		return err
	}
	defer r.owner.stop()
	if _, _, err := ask(r.owner, orderBack, 0); err != nil {
		return err
	}
	return compare(ctx, s, cells)
}

// besideGuest measures what a first copy costs the guest. The peer is another PC's affair: it keeps its copy on tmpfs, on this computer's loopback, and has what
// processor time nobody else wants. The lab's lines take eight times as much of that as an owner does who sends.
func besideGuest(ctx context.Context, s settings) error {
	var r resync
	cells := r.guestCells(s)
	if !wanted(s, cells) {
		return errNoCell
	}
	dir, remove, err := folder(s.scratch)
	if err != nil {
		return err
	}
	defer remove()
	fast, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var at string
	r.size = s.size
	r.peer, at, err = announced(ctx, "resyncpeer", "nice", "-n", "19", self, "resyncpeer", "-dir", fast)
	if err != nil {
		return err
	}
	defer r.peer.stop()
	r.owner, r.socket, err = announced(ctx, "resyncowner", self, "resyncowner", "-dir", dir, "-bytes", strconv.FormatInt(s.size, 10), "-peer", at)
	if err != nil {
		return err
	}
	defer r.owner.stop()
	if _, _, err := ask(r.owner, orderBack, 0); err != nil {
		return err
	}
	if err := compare(ctx, s, cells); err != nil {
		return err
	}
	for _, load := range slices.Sorted(maps.Keys(r.beside)) {
		v := r.beside[load]
		fmt.Printf("resync/beside-%s copied=%.1f unit=MB/s spread=%.1f-%.1f\n", load, median(v), slices.Min(v), slices.Max(v))
	}
	return nil
}

// moves are the orders that move content, or find out which; only these are counted.
var moves = []string{orderBack, orderFirst, orderDiffer, orderBare, orderPut}

// run gives orders one after the other, to the peer those that are its, and returns what those that count moved, and how long these took.
func (r *resync) run(orders ...string) (bytes int64, seconds float64, err error) {
	for _, o := range orders {
		to := r.owner
		what, much, _ := strings.Cut(o, " ")
		if what == orderWipe || what == orderPut {
			to = r.peer
		}
		n, _ := strconv.ParseInt(much, 10, 64)
		moved, took, err := ask(to, what, n)
		if err != nil {
			return 0, 0, err
		}
		if slices.Contains(moves, what) {
			bytes, seconds = bytes+moved, seconds+took
		}
	}
	return bytes, seconds, nil
}

// cells are what is measured over one line. Contenders of a cell are measured one after the other, ours first or last: the bare ones move as many bytes as
// ours moved last.
func (r *resync) cells(size int64, name string) []cell {
	moved := size / 4
	ours := func(orders ...string) func(context.Context) (sample, error) {
		return func(context.Context) (sample, error) {
			bytes, seconds, err := r.run(orders...)
			moved = max(bytes, 1<<20)
			return sample{rate: float64(moved) / 1e6 / max(seconds, 1e-9)}, err
		}
	}
	slower := func(context.Context) (sample, error) {
		_, line, err := r.run(fmt.Sprint(orderBare, " ", moved))
		if err != nil {
			return sample{}, err
		}
		_, disk, err := r.run(fmt.Sprint(orderPut, " ", moved))
		return sample{rate: float64(moved) / 1e6 / max(line, disk, 1e-9)}, err
	}
	against := func(what string, aim float64, orders ...string) cell {
		return cell{"resync/" + name + "-" + what, "MB/s", []contender{
			{name: "ours", measure: ours(orders...)}, {name: "slower-of-line-and-disk", measure: slower, aim: aim},
		}}
	}
	apart := fmt.Sprint(orderChurn, " ", size>>20*apartBytes)
	out := []cell{
		against("dirty", 0.85, orderAway, apart, orderBack),
		against("first", 0.85, orderForget, orderWipe, orderBack),
		// Both ends read and hash all of the disk, of which little is moved.
		against("sums", 0, orderAway, apart, orderForget, orderDiffer, orderBack),
	}
	if name == "shaped" {
		// Pushes go to other sites; on a line between neighbours, as fast as the computer can, there are none.
		out = append(out, against("first-pushed", 0.85, orderForget, orderWipe, orderFirst))
	}
	return out
}

// guestCells are what a guest has while its disk is copied.
func (r *resync) guestCells(s settings) (out []cell) {
	guest := func(l load, copying bool) func(context.Context) (sample, error) {
		return func(ctx context.Context) (sample, error) {
			orders := []string{orderBack}
			if copying {
				orders = []string{orderForget, orderWipe, orderFollow}
			}
			if _, _, err := r.run(orders...); err != nil {
				return sample{}, err
			}
			if !copying {
				if _, _, err := r.run(orderAway); err != nil {
					return sample{}, err
				}
			}
			// Before the load begins the guest rests, and the copy makes use of that.
			l.ramp = s.seconds / 2
			var begun time.Time
			var before int64
			var asked error
			var looking sync.WaitGroup
			looking.Go(func() {
				time.Sleep(l.ramp + s.seconds/4)
				before, _, asked = ask(r.owner, orderSent, 0)
				begun = time.Now()
			})
			got, err := fio(ctx, r.socket, r.size, l, s.seconds)
			ended := time.Now()
			looking.Wait()
			if err = errors.Join(err, asked); err != nil {
				return sample{}, err
			}
			if copying {
				after, _, err := ask(r.owner, orderSent, 0)
				if err != nil {
					return sample{}, err
				}
				if r.beside == nil {
					r.beside = map[string][]float64{}
				}
				r.beside[l.String()] = append(r.beside[l.String()], float64(after-before)/1e6/ended.Sub(begun).Seconds())
			}
			if l.burst > 0 {
				return sample{rate: 1e9 / max(got.mean, 1)}, nil // what rests does little a second, whatever it waits
			}
			return sample{rate: got.rate}, nil
		}
	}
	for _, l := range []load{{block: 4 << 10, depth: 1, write: true, sync: true}, {block: 4 << 10, depth: 1}, {block: 4 << 10, depth: 1, burst: 1000}} {
		out = append(out, cell{"resync/guest-" + l.String(), "iops", []contender{
			{name: "copying", measure: guest(l, true)}, {name: "alone", measure: guest(l, false), aim: 0.95},
		}})
	}
	return out
}
