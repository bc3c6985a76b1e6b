package push

import (
	"fmt"

	"tagalong.org/tagalong/p2p/flow"
)

// maxAsked is how many sums may wait for their answers. At 16 bytes each this fills the longest way that there is to fill.
const maxAsked = 1 << 16

// question is one that was asked, and, when need is known, its answer.
type question struct {
	region int64
	class  class
	kind   kind
	set    set
	need   set
}

func (q *question) sums() int { return q.kind.sums(q.set.count()) }

// begun is a region that isn't dealt with.
type begun struct {
	questions int
	bytes     int64 // that there is something to do about
}

// finished is a region that was dealt with by what was sent up to a byte of the stream.
type finished struct{ region, bytes, end int64 }

// sender is one running Send: run decides and sends, listen takes what the receiver says.
type sender struct {
	link  *link
	stats *Stats
	size  int64
	work  Work
	holds held
	blank bool // the receiver's disk is zeros where it holds nothing
	sums  *summer

	// Guarded by link.mu.
	asked    []question // in order
	answered []question
	waiting  int // sums
	ended    bool
	commit   bool // was sent

	// run's.
	asking  *asking
	pack    *flow.Compressor
	regions []int32
	open    map[int64]begun
	zeros   run        // to be sent
	late    []finished // regions that are, when these are sent
	ready   []finished // in order
	buf     []byte     // a region
	batch   []byte
	out     []byte
}

// take takes an answer.
func (x *sender) take(f *frame) error {
	x.link.mu.Lock()
	defer x.link.mu.Unlock()
	if len(x.asked) == 0 || x.asked[0].region != f.region {
		return fmt.Errorf("answer about region %d: %w", f.region, ErrProtocol)
	}
	q := x.asked[0]
	if more := f.set.minus(&q.set); !more.empty() {
		return fmt.Errorf("answer about other blocks of region %d: %w", f.region, ErrProtocol)
	}
	q.need = f.set
	for rest := q.set; q.kind.group() > 1 && !rest.empty(); {
		group := rest.take(q.kind.group())
		if some := group.and(&q.need); !some.empty() && some != group {
			return fmt.Errorf("answer about a part of a sum of region %d: %w", f.region, ErrProtocol)
		}
	}
	x.asked = x.asked[1:]
	x.waiting -= q.sums()
	x.answered = append(x.answered, q)
	x.link.cond.Broadcast()
	return nil
}

// committed takes that the receiver is at the cut.
func (x *sender) committed() error {
	x.link.mu.Lock()
	defer x.link.mu.Unlock()
	if !x.commit {
		return fmt.Errorf("done before the end: %w", ErrProtocol)
	}
	x.ended = true
	x.link.cond.Broadcast()
	return nil
}

// run sends all there is to send.
func (x *sender) run(begin []byte) error {
	if err := x.plan(); err != nil {
		return err
	}
	if err := x.link.write(begin); err != nil {
		return err
	}
	for {
		x.release(x.safe())
		q, what, err := x.next()
		switch {
		case err != nil:
			return err
		case what == stepAnswer:
			err = x.resolve(q)
		case what == stepRegion:
			r := int64(x.regions[0])
			x.regions = x.regions[1:]
			err = x.region(r)
		default:
			return x.end()
		}
		if err != nil {
			return err
		}
	}
}

func (x *sender) safe() int64 {
	_, safe := x.link.place()
	return safe
}

// step is what to do next.
type step int

const (
	stepEnd    step = 0
	stepAnswer step = 1
	stepRegion step = 2
)

// next waits until there is something to do. Answers come first: they may lead to further questions, whose answers take a trip.
func (x *sender) next() (question, step, error) {
	x.link.mu.Lock()
	defer x.link.mu.Unlock()
	for x.link.err == nil {
		switch {
		case len(x.answered) > 0:
			q := x.answered[0]
			x.answered = x.answered[1:]
			return q, stepAnswer, nil
		case len(x.regions) > 0 && x.waiting < maxAsked:
			return question{}, stepRegion, nil
		case len(x.asked) == 0:
			return question{}, stepEnd, nil
		}
		x.link.sleep(false)
	}
	return question{}, stepEnd, x.link.err
}

// end commits the cut.
func (x *sender) end() error {
	if err := x.flushZeros(); err != nil {
		return err
	}
	x.link.mu.Lock()
	x.commit = true
	x.link.mu.Unlock()
	if err := x.link.write([]byte{byte(tagCommit)}); err != nil {
		return err
	}
	if err := x.await(); err != nil {
		return err
	}
	all, _ := x.link.place()
	x.release(all)
	x.link.end()
	<-x.link.served
	if err := x.link.s.CloseWrite(); err != nil {
		return fmt.Errorf("close write side: %w", err)
	}
	return nil
}

func (x *sender) await() error {
	x.link.mu.Lock()
	defer x.link.mu.Unlock()
	for x.link.err == nil && !x.ended {
		x.link.sleep(false)
	}
	return x.link.err
}

// release tells the Source of the regions that are durable at the receiver when so many bytes of the stream are.
func (x *sender) release(safe int64) {
	for len(x.ready) > 0 && x.ready[0].end <= safe {
		f := x.ready[0]
		x.ready = x.ready[1:]
		x.work.Source.Done(f.region*Region, min(Region, x.size-f.region*Region))
		x.stats.Covered.Add(f.bytes)
	}
}

// plan finds out which regions there is something to do about, and their order.
func (x *sender) plan() error {
	todo := int64(0)
	for at, end := int64(0), regionsOf(x.size); at < end; at++ {
		off, n, err := x.lacking(at * Region)
		if err != nil {
			return err
		}
		h := x.holds.next(at * regionBlocks)
		switch {
		case n == 0 && h.a == h.b:
			at = end
			continue
		case n == 0 || h.a < h.b && h.a*Block < off:
			at = h.a / regionBlocks
		default:
			at = off / Region
		}
		x.regions = append(x.regions, int32(at))
		all, _, err := x.wanted(at)
		if err != nil {
			return err
		}
		todo += int64(all.count()) * Block
	}
	x.stats.Todo.Store(todo)
	x.stats.Covered.Store(0)
	coldFirst(x.regions, x.work.Heat)
	return nil
}

// lacking is Source.Next, made sure of.
func (x *sender) lacking(at int64) (off, n int64, err error) {
	if at >= x.size {
		return 0, 0, nil
	}
	off, n = x.work.Source.Next(at)
	if n != 0 && (off < at || n < 0 || off%Block != 0 || n%Block != 0 || off > x.size-n) {
		return 0, 0, fmt.Errorf("%d lacking bytes at %d, from %d on: %w", n, off, at, ErrSource)
	}
	return off, n, nil
}

// wanted is which blocks of a region there is something to do about, and which of them the receiver holds.
func (x *sender) wanted(r int64) (all, holds set, err error) {
	holds = x.holds.in(r)
	all = holds
	start := r * Region
	end := min(x.size, start+Region)
	for at := start; at < end; {
		off, n, err := x.lacking(at)
		if err != nil || n == 0 || off >= end {
			return all, holds, err
		}
		at = min(end, off+n)
		all.fill(int((off-start)/Block), int((at-start)/Block))
	}
	return all, holds, nil
}

// region begins with a region.
func (x *sender) region(r int64) error {
	all, holds, err := x.wanted(r)
	if err != nil {
		return err
	}
	data, err := x.read(r, all)
	if err != nil {
		return err
	}
	zeros := all.minus(&data)
	if x.blank {
		zeros = zeros.and(&holds)
	}
	if err := x.zero(r, &zeros); err != nil {
		return err
	}
	fresh := classGuessed
	if x.work.Exact {
		fresh = classWritten
	}
	x.open[r] = begun{1, int64(all.count()) * Block} // one question more, until both classes were begun
	for _, part := range []struct {
		class class
		set   set
	}{{classHeld, data.and(&holds)}, {fresh, data.minus(&holds)}} {
		if part.set.empty() {
			continue
		}
		kind, ok := x.asking.first(part.class, part.set.count(), x.cost())
		if ok {
			err = x.ask(question{region: r, class: part.class, kind: kind, set: part.set})
		} else {
			err = x.content(r, part.set)
		}
		if err != nil {
			return err
		}
	}
	x.settled(r)
	return nil
}

// cost is what the content of a block is likely to take on the wire, in bytes.
func (x *sender) cost() float64 { return Block / x.pack.Ratio(x.link.speed()) }

// settled says that a question about r, or all else about it, was dealt with.
func (x *sender) settled(r int64) {
	b := x.open[r]
	if b.questions--; b.questions > 0 {
		x.open[r] = b
		return
	}
	delete(x.open, r)
	if x.zeros.a < x.zeros.b {
		x.late = append(x.late, finished{region: r, bytes: b.bytes})
		return
	}
	sent, _ := x.link.place()
	x.ready = append(x.ready, finished{r, b.bytes, sent})
}

// resolve goes on with an answer.
func (x *sender) resolve(q question) error {
	n, need := q.set.count(), q.need.count()
	x.asking.learn(q.class, q.kind, n, need)
	x.stats.Same.Add(int64(n-need) * Block)
	if need > 0 {
		if err := x.load(q.region, &q.need); err != nil {
			return err
		}
		finer, ok := x.asking.finer(q.class, q.kind, need, x.cost())
		if ok {
			if err := x.ask(question{region: q.region, class: q.class, kind: finer, set: q.need}); err != nil {
				return err
			}
		} else {
			if q.kind.group() > 1 {
				x.asking.learn(q.class, askBlocks, need, need)
			}
			if err := x.content(q.region, q.need); err != nil {
				return err
			}
		}
	}
	x.settled(q.region)
	return nil
}

// ask asks about blocks that are in buf.
func (x *sender) ask(q question) error {
	x.out = appendAsk(x.out[:0], q.kind, q.region, &q.set, blocksOf(x.size, q.region))
	for rest := q.set; !rest.empty(); {
		group := rest.take(q.kind.group())
		x.batch = x.gather(x.batch[:0], &group)
		x.out = x.sums.appendSum(x.out, q.kind, x.batch)
	}
	b := x.open[q.region]
	b.questions++
	x.open[q.region] = b
	x.link.mu.Lock()
	x.asked = append(x.asked, q)
	x.waiting += q.sums()
	x.link.mu.Unlock()
	return x.link.write(x.out)
}

// content sends blocks that are in buf.
func (x *sender) content(r int64, s set) error {
	for !s.empty() {
		part := s.take(batchBlocks)
		x.batch = x.gather(x.batch[:0], &part)
		codec, body, err := x.pack.Pack(x.batch, x.link.speed(), false)
		if err != nil {
			return err
		}
		x.out = appendData(x.out[:0], codec, r, &part, blocksOf(x.size, r), body)
		x.stats.Content.Add(int64(len(x.batch)))
		if err := x.link.write(x.out); err != nil {
			return err
		}
	}
	return nil
}

// gather appends the blocks of a set from buf.
func (x *sender) gather(b []byte, s *set) []byte {
	for a, e := range s.runs() {
		b = append(b, x.buf[a*Block:e*Block]...)
	}
	return b
}

// zero sends zero blocks, or keeps them for those that may follow.
func (x *sender) zero(r int64, s *set) error {
	for a, b := range s.runs() {
		next := run{r*regionBlocks + int64(a), r*regionBlocks + int64(b)}
		if next.a == x.zeros.b && x.zeros.a < x.zeros.b {
			x.zeros.b = next.b
			continue
		}
		if err := x.flushZeros(); err != nil {
			return err
		}
		x.zeros = next
	}
	return nil
}

func (x *sender) flushZeros() error {
	if x.zeros.a == x.zeros.b {
		return nil
	}
	x.out = appendZero(x.out[:0], x.zeros)
	x.stats.Zeroed.Add((x.zeros.b - x.zeros.a) * Block)
	x.zeros = run{}
	if err := x.link.write(x.out); err != nil {
		return err
	}
	sent, _ := x.link.place()
	for _, f := range x.late {
		f.end = sent
		x.ready = append(x.ready, f)
	}
	x.late = x.late[:0]
	return nil
}

// read loads the blocks of a region, without its longer holes, and says which of them aren't zeros.
func (x *sender) read(r int64, s set) (data set, err error) {
	start := r * Region
	for a, b := range s.runs() {
		if b-a < unitBlocks {
			data.fill(a, b) // to read so little takes less than to ask where its holes are
			continue
		}
		for off, end := int64(a)*Block, int64(b)*Block; off < end; {
			ext, err := x.work.Source.Extents(start+off, end-off)
			if err != nil {
				return data, fmt.Errorf("extents: %w", err)
			}
			before := off
			for _, e := range ext {
				if e.Len <= 0 || e.Len > end-off {
					return data, fmt.Errorf("extent of %d bytes, %d left: %w", e.Len, end-off, ErrSource)
				}
				if !e.Hole {
					data.fill(int(off/Block), int((off+e.Len+Block-1)/Block))
				}
				off += e.Len
			}
			if off == before {
				return data, fmt.Errorf("no extents: %w", ErrSource)
			}
		}
	}
	if err := x.load(r, &data); err != nil {
		return data, err
	}
	for a := data.next(0, true); a < regionBlocks; a = data.next(a+1, true) {
		if isZero(x.buf[a*Block : (a+1)*Block]) {
			data[a/64] &^= 1 << (a % 64)
		}
	}
	return data, nil
}

// load reads blocks of a region into buf.
func (x *sender) load(r int64, s *set) error {
	for a, b := range s.runs() {
		if err := x.work.Source.ReadAt(x.buf[a*Block:b*Block], r*Region+int64(a)*Block); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
	return nil
}
