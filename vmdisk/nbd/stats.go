package nbd

import (
	"sync/atomic"
	"time"
)

// Stats is what a Server has done since it was made. Requests count when the Backend has done them.
type Stats struct {
	// Conns is the number of clients now; Accepted and Refused (over MaxConns) count them all.
	Conns, Accepted, Refused int64
	// Reads to Statuses count requests; FUA counts those among them that asked for durability.
	Reads, Writes, Flushes, Trims, Zeroes, Caches, Statuses, FUA int64
	// ReadBytes to ZeroBytes are the sums of their lengths, in bytes.
	ReadBytes, WriteBytes, TrimBytes, ZeroBytes int64
	// Took is how long the Backend took for all of them, estimated from a part of the short ones; Open is how many are with it now, of those that
	// are given to it side by side.
	Took time.Duration
	Open int64
	// Errors counts requests answered with an error, HangUps those that were not answered because the
	// Backend said ErrHangUp.
	Errors, HangUps int64
}

// counters is Stats while they count.
type counters struct {
	conns, accepted, refused, errors, hangUps, fua atomic.Int64
	requests, bytes                                [cmdBlockStatus + 1]atomic.Int64
	took, open                                     atomic.Int64 // nanoseconds; requests
}

// count notes a request that succeeded.
func (n *counters) count(r *header) {
	n.requests[r.cmd].Add(1)
	n.bytes[r.cmd].Add(r.length)
	if r.flags&cmdFlagFUA != 0 {
		n.fua.Add(1)
	}
}

// spent notes how long the Backend took; 0 is nothing.
func (n *counters) spent(d time.Duration) {
	if d > 0 {
		n.took.Add(int64(d))
	}
}

// Stats returns the numbers so far. They are read one after the other, not at one moment.
func (s *Server) Stats() Stats {
	n := &s.counters
	return Stats{
		Conns: n.conns.Load(), Accepted: n.accepted.Load(), Refused: n.refused.Load(),
		Reads:    n.requests[cmdRead].Load(),
		Writes:   n.requests[cmdWrite].Load(),
		Flushes:  n.requests[cmdFlush].Load(),
		Trims:    n.requests[cmdTrim].Load(),
		Zeroes:   n.requests[cmdWriteZeroes].Load(),
		Caches:   n.requests[cmdCache].Load(),
		Statuses: n.requests[cmdBlockStatus].Load(),
		FUA:      n.fua.Load(),

		ReadBytes:  n.bytes[cmdRead].Load(),
		WriteBytes: n.bytes[cmdWrite].Load(),
		TrimBytes:  n.bytes[cmdTrim].Load(),
		ZeroBytes:  n.bytes[cmdWriteZeroes].Load(),
		Took:       time.Duration(n.took.Load()),
		Open:       n.open.Load(),
		Errors:     n.errors.Load(),
		HangUps:    n.hangUps.Load(),
	}
}
