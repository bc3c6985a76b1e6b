package pairing

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Join dials the offerer at a TCP address ("host:port") and pairs with it; see
// JoinConn.
func Join(ctx context.Context, addr, code string, me Identity, o Options) (Result, error) {
	if _, err := o.complete(code, me); err != nil {
		return Result{}, fmt.Errorf("join: %w", err)
	}
	d := net.Dialer{Timeout: o.Timeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return Result{}, fmt.Errorf("join: %w", err)
	}
	return JoinConn(ctx, c, code, me, o)
}

// JoinConn pairs with the offerer at the other end of c, as the joiner, and
// closes c. The code is used for one guess; ErrWrongCode means that the codes
// differ. Both sides have proved to know it, and the peer to have its
// identity's key, when it succeeds. ErrUnconfirmed: see there.
func JoinConn(ctx context.Context, c net.Conn, code string, me Identity, o Options) (Result, error) {
	defer func() { _ = c.Close() }()
	prs, err := o.complete(code, me)
	if err != nil {
		return Result{}, fmt.Errorf("join: %w", err)
	}
	if err := c.SetDeadline(time.Now().Add(o.Timeout)); err != nil {
		return Result{}, fmt.Errorf("join: set deadline: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	s := newSession(c, me, &o, joiner, offerer)
	r, err := join(s, prs, &o)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		} else {
			s.reject(err)
		}
		return Result{}, fmt.Errorf("join: %w", err)
	}
	return r, nil
}

func join(s *session, prs []byte, o *Options) (Result, error) {
	if err := s.hello(); err != nil {
		return Result{}, err
	}
	if err := s.shares(prs); err != nil {
		return Result{}, err
	}
	if err := s.proveKey(); err != nil {
		return Result{}, err
	}
	proof, err := s.readProof()
	if err != nil {
		return Result{}, err
	}
	if !s.proofHolds(proof) {
		return Result{}, ErrWrongCode
	}
	if err := s.keys(); err != nil {
		return Result{}, err
	}
	if err := s.tellIdentity(); err != nil {
		return Result{}, err
	}
	peer, err := s.readIdentity()
	if err != nil {
		return Result{}, err
	}
	if err := s.writeSealed(msgDone, nil); err != nil {
		return Result{}, fmt.Errorf("done: %w", err)
	}
	if _, err := s.readSealed(msgStored); err != nil {
		// Whatever came instead may be forged: the offerer may have stored.
		return Result{}, fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	r := Result{Peer: peer, Words: s.words}
	if err := o.store(r); err != nil {
		return Result{}, err
	}
	return r, nil
}
