package main

import "context"

// benchCut compares writing with a cut open, of which half is still to be copied, with writing without one. Every
// measurement begins with a fresh cut, since a block is kept only once.
func benchCut(ctx context.Context, s settings) error {
	dir, remove, err := folder(s.fast)
	if err != nil {
		return err
	}
	defer remove()
	with, err := ours(ctx, dir, "with-cut", s.size, false)
	if err != nil {
		return err
	}
	defer with.stop()
	without, err := ours(ctx, dir, "no-cut", s.size, false)
	if err != nil {
		return err
	}
	defer without.stop()
	var cells []cell
	for _, l := range []load{{block: 4 << 10, depth: 1, write: true}, {block: 4 << 10, depth: 32, write: true}, {block: 64 << 10, depth: 8, write: true}} {
		c := overSocket("cut/", s, l, with, []*server{without}, 0.7)
		measure := c.contenders[0].measure
		c.contenders[0].measure = func(ctx context.Context) (sample, error) {
			if err := with.order(orderCut); err != nil {
				return sample{}, err
			}
			return measure(ctx)
		}
		cells = append(cells, c)
	}
	return compare(ctx, s, cells)
}
