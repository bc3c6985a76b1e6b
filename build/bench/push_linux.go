package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tagalong.org/tagalong/build/lab"
	"tagalong.org/tagalong/vmdisk"
)

// benchPush measures what a push sends of 1 % scattered 4 KiB writes over a home's uplink, and how well it uses that. Absolute figures.
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
	blocks := s.size / vmdisk.Block / 100
	changed := float64(blocks * vmdisk.Block)
	for _, c := range []struct {
		name    string
		blindly int64
		most    float64
	}{{"push/exact", 0, 1.01}, {"push/sums", 1, 1.10}} {
		if !strings.Contains(c.name, s.only) {
			continue
		}
		if _, err := tell(owner, orderScatter, blocks); err != nil {
			return err
		}
		there, back := link.Carried("home"), link.Carried("office")
		got, err := tell(owner, orderPush, c.blindly)
		if err != nil {
			return err
		}
		there, back = link.Carried("home")-there, link.Carried("office")-back
		fmt.Printf("%s ratio=%.4f bytes=%d changed=%.0f content=%d onlink=%d back=%d most=%g\n", c.name, float64(got.bytes)/changed, got.bytes, changed, got.content, there, back, c.most)
		rate := float64(there) * 8 / got.seconds
		fmt.Printf("%s-use ratio=%.3f bits=%.0f seconds=%.1f unit=bit/s link=%d aim=0.95\n", c.name, rate/float64(lab.HomeWAN.Rate), rate, got.seconds, lab.HomeWAN.Rate)
	}
	return nil
}

// toldPush is what a pusher answers.
type toldPush struct {
	bytes, content int64
	seconds        float64
}

// tell gives a pusher an order, and waits until it is carried out.
func tell(owner *server, order string, n int64) (t toldPush, err error) {
	if _, err := fmt.Fprintln(owner.stdin, order, n); err != nil {
		return t, err
	}
	line, err := bufio.NewReader(owner.stdout).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &t.bytes, &t.content, &t.seconds)
	}
	if err != nil {
		return t, fmt.Errorf("%s: %q: %w", order, line, err)
	}
	return t, nil
}
