package p2p

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

func TestPulseOfASilentConnection(t *testing.T) {
	p := newPulse(10 * time.Second)
	if p.dead(13 * time.Second) {
		t.Error("dead after exactly 3 s")
	}
	if !p.dead(13*time.Second + ms) {
		t.Error("alive after more than 3 s of silence")
	}
	p.heard(13 * time.Second)
	if p.dead(16 * time.Second) {
		t.Error("what was heard doesn't count")
	}
}

// A mirror that writes a little all the time must not hide a black hole.
func TestPulseTrickleDoesNotHideDeath(t *testing.T) {
	p := newPulse(0)
	written := int64(0)
	now := time.Duration(0)
	for ; now < 20*time.Second; now += beatInterval {
		written += 50 << 10
		seq, _ := p.ask(now, written)
		if !p.answer(now+ms, seq) {
			t.Fatal("answer refused")
		}
	}
	cut := now
	for !p.dead(now) {
		written += 50 << 10
		p.ask(now, written)
		now += beatInterval
		if now-cut > 5*time.Second {
			t.Fatalf("still alive %v after the last answer", now-cut)
		}
	}
}

// On a slow link the question waits behind megabytes that were written before.
func TestPulseWaitsBehindData(t *testing.T) {
	const rate = 875_000 // 7 Mbit/s
	p := newPulse(0)
	var queue []question // what travels, by arrival
	written, now := int64(0), time.Duration(0)
	for now = 0; now < 60*time.Second; now += 50 * ms {
		arrived := int64(rate * now.Seconds())
		for written < arrived+4<<20 {
			written += 64 << 10
		}
		if now%beatInterval == 0 {
			if seq, ok := p.ask(now, written); ok {
				queue = append(queue, question{seq: seq, written: written})
			}
		}
		for len(queue) > 0 && queue[0].written <= arrived {
			if !p.answer(now, queue[0].seq) {
				t.Fatal("answer refused")
			}
			queue = queue[1:]
		}
		if p.dead(now) {
			t.Fatalf("a full 7 Mbit/s link counts as dead after %v", now)
		}
	}
	cut := now
	for !p.dead(now) {
		p.ask(now, written)
		now += 50 * ms
	}
	if took := now - cut; took > silence+maxPatience {
		t.Errorf("death noticed after %v", took)
	}
}

func TestPulseProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPulse(0)
		var now, heard time.Duration
		var written int64
		t.Repeat(map[string]func(*rapid.T){
			"ask": func(t *rapid.T) {
				written += rapid.Int64Range(0, 1<<24).Draw(t, "bytes")
				p.ask(now, written)
			},
			"answer": func(t *rapid.T) {
				before, asked := p.answered, p.asked
				seq := rapid.Uint64().Draw(t, "any")
				if rapid.Bool().Draw(t, "near") {
					seq = rapid.Uint64Range(0, asked+2).Draw(t, "seq")
				}
				ok := p.answer(now, seq)
				if ok != (seq > before && seq <= asked) {
					t.Fatalf("answer(%d)=%v with %d answered and %d asked", seq, ok, before, asked)
				}
				if ok {
					heard = now
				}
			},
			"heard": func(*rapid.T) { p.heard(now); heard = now },
			"wait":  func(t *rapid.T) { now += time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "d")) },
			"": func(t *rapid.T) {
				if len(p.open) > maxUnanswered {
					t.Fatalf("%d questions kept", len(p.open))
				}
				if now-heard <= silence && p.dead(now) {
					t.Fatal("dead too early")
				}
				if now-heard > silence+maxPatience && !p.dead(now) {
					t.Fatal("alive too long")
				}
				if p.rate < leastRate {
					t.Fatalf("rate %v", p.rate)
				}
			},
		})
	})
}

func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b backoff
		for i := range rapid.IntRange(1, 50).Draw(t, "n") {
			w := b.next()
			if most := waits[min(i, len(waits)-1)]; w > most || w < most-most/5 {
				t.Fatalf("wait %d is %v", i, w)
			}
		}
		b.reset()
		if b.next() > waits[0] {
			t.Fatal("reset does nothing")
		}
	})
}
