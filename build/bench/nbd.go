package main

import (
	"context"
	"fmt"
)

// benchNBD compares our server with qemu-nbd and nbdkit, and QEMU over it with QEMU on the bare file.
func benchNBD(ctx context.Context, s settings) error {
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	peers, err := theirs(ctx, dir, s.size)
	if err != nil {
		return err
	}
	defer stopAll(peers)
	us, err := ours(ctx, dir, "ours", s.size, false)
	if err != nil {
		return err
	}
	defer us.stop()
	streaming, err := ours(ctx, dir, "streaming", s.size, true)
	if err != nil {
		return err
	}
	defer streaming.stop()
	// QEMU on a bare file, which nobody else has open.
	bare := dir + "/bare.raw"
	if err := makeImage(bare, s.size); err != nil {
		return err
	}

	var cells []cell
	for _, c := range []struct {
		load
		aim float64
	}{
		{load{block: 4 << 10, depth: 1}, 3.5},
		{load{block: 4 << 10, depth: 32}, 5},
		{load{block: 4 << 10, depth: 1, write: true}, 3},
		{load{block: 4 << 10, depth: 32, write: true}, 3.3},
		{load{block: 64 << 10, depth: 8}, 1.7},
		{load{block: 64 << 10, depth: 8, write: true}, 1.1},
		{load{block: 1 << 20, depth: 4}, 2},
		{load{block: 1 << 20, depth: 4, write: true}, 1.5},
	} {
		cells = append(cells, overSocket("nbd/", s, c.load, us, peers, c.aim))
	}
	for _, c := range []struct {
		load
		aim float64
	}{
		{load{block: 4 << 10, depth: 1}, 0.65},
		{load{block: 4 << 10, depth: 1, write: true}, 0.65},
		{load{block: 4 << 10, depth: 32}, 0.95},
		{load{block: 4 << 10, depth: 32, write: true}, 0.95},
	} {
		cells = append(cells, throughQEMU(s, c.load, us, bare, peers[0], c.aim))
	}
	for _, l := range []load{{block: 4 << 10, depth: 32, write: true}, {block: 64 << 10, depth: 8, write: true}} {
		c := overSocket("epochs/", s, l, streaming, []*server{us}, 0.9)
		c.contenders[1].name = "no-stream"
		cells = append(cells, c)
	}
	return compare(ctx, s, cells)
}

// benchFlush compares what a guest waits for a write and its flush, where that is a matter of the disk.
func benchFlush(ctx context.Context, s settings) error {
	dir, remove, err := folder(s.scratch)
	if err != nil {
		return err
	}
	defer remove()
	peers, err := theirs(ctx, dir, s.size)
	if err != nil {
		return err
	}
	defer stopAll(peers)
	us, err := ours(ctx, dir, "ours", s.size, false)
	if err != nil {
		return err
	}
	defer us.stop()
	return compare(ctx, s, []cell{overSocket("flush/", s, load{block: 4 << 10, depth: 1, write: true, sync: true}, us, peers, 1)})
}

// String is the load's short name: r4k-d32.
func (l load) String() string {
	kind := "r"
	if l.write {
		kind = "w"
	}
	size := fmt.Sprintf("%dk", l.block>>10)
	if l.block >= 1<<20 {
		size = fmt.Sprintf("%dM", l.block>>20)
	}
	name := fmt.Sprintf("%s%s-d%d", kind, size, l.depth)
	if l.sync {
		name += "-flush"
	}
	if l.burst > 0 {
		name += "-bursts"
	}
	return name
}

// overSocket is fio's load on each server. The aim is against the first peer.
func overSocket(prefix string, s settings, l load, us *server, peers []*server, aim float64) cell {
	c := cell{name: prefix + l.String(), unit: "iops"}
	for i, p := range append([]*server{us}, peers...) {
		k := contender{name: p.name, measure: func(ctx context.Context) (sample, error) {
			before := p.cpu()
			r, err := fio(ctx, p.socket, s.size, l, s.seconds)
			return sample{r.rate, (p.cpu() - before) / max(1, r.count)}, err
		}}
		if i == 1 {
			k.aim = aim
		}
		c.contenders = append(c.contenders, k)
	}
	return c
}

// throughQEMU is qemu-img's load on our server, on the bare file (whose ratio the aim is for), and on qemu-nbd.
func throughQEMU(s settings, l load, us *server, bare string, peer *server, aim float64) cell {
	on := func(name, target string, aim float64) contender {
		return contender{name: name, aim: aim, measure: func(ctx context.Context) (sample, error) {
			rate, err := qemuImg(ctx, target, l, s.seconds)
			return sample{rate: rate}, err
		}}
	}
	return cell{"qemu/" + l.String(), "iops", []contender{
		on("ours", us.uri(), 0), on("file", bare, aim), on(peer.name, peer.uri(), 0),
	}}
}
