package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zeebo/blake3"

	"tagalong.org/tagalong/p2p/replica"
	"tagalong.org/tagalong/p2p/wire"
)

// SetsProtocol is the ID of the stream on which a giver tells the taker what its replica lacks: the giver sends a SetsHeader and
// as many bytes as that says, the taker answers with one frame once it has them durably, and the stream ends.
const SetsProtocol = "/tagalong/lacking/1"

// SetsVersion is the version in SetsHeader.
const SetsVersion = 1

const (
	// setsPiece is after how many bytes the progress is told.
	setsPiece = 64 << 10
	// setsPieceTime bounds the moving of one piece: less than 1 kB/s is a dead link.
	setsPieceTime = 60 * time.Second
	// setsKeepTime bounds the taker's making it durable.
	setsKeepTime = 60 * time.Second
)

// ErrNotKept: the taker couldn't keep what it was told; its words are in the text.
var ErrNotKept = errors.New("handoff: the taker didn't keep what it lacks")

// Sets is what a giver tells of its disk as it gives it: at Position, what each replica lacks of that. The bytes are opaque here.
type Sets struct {
	VM, Attempt string
	Position    replica.Position
	Sets        []byte // at most MaxDirty
}

// setsHeader goes before the bytes.
type setsHeader struct {
	Version  int              `json:"version"`
	VM       string           `json:"vm"`
	Attempt  string           `json:"attempt"`
	Position replica.Position `json:"position"`
	Length   int              `json:"length"`
	Hash     []byte           `json:"blake3"`
}

// setsAnswer is the taker's.
type setsAnswer struct {
	Kept bool   `json:"kept"`
	Text string `json:"text,omitempty"`
}

// SendSets tells x over s, and returns when the taker has it durably. moved, which may be nil, is called when some of it has moved. s is
// closed or reset when it returns. Errors: ErrHeader, wire.ErrTooLarge, ErrNotKept, that of ctx, those of s.
func SendSets(ctx context.Context, s Stream, x Sets, moved func()) error {
	err := sendSets(ctx, s, x, moved)
	if err != nil {
		_ = s.Reset()
		return fmt.Errorf("handoff: tell what is lacking: %w", err)
	}
	return s.Close()
}

func sendSets(ctx context.Context, s Stream, x Sets, moved func()) error {
	if len(x.Sets) > MaxDirty {
		return fmt.Errorf("sets of %d bytes: %w", len(x.Sets), wire.ErrTooLarge)
	}
	sum := blake3.Sum256(x.Sets)
	h := setsHeader{SetsVersion, x.VM, x.Attempt, x.Position, len(x.Sets), sum[:]}
	if err := h.check(); err != nil {
		return err
	}
	done := wire.Bound(ctx, s.SetWriteDeadline, headerTimeout)
	if err := done(wire.WriteJSON(s, h)); err != nil {
		return err
	}
	for p := x.Sets; len(p) > 0; {
		n := min(len(p), setsPiece)
		done := wire.Bound(ctx, s.SetWriteDeadline, setsPieceTime)
		_, err := s.Write(p[:n])
		if err = done(err); err != nil {
			return err
		}
		p = p[n:]
		if moved != nil {
			moved()
		}
	}
	var a setsAnswer
	done = wire.Bound(ctx, s.SetReadDeadline, setsKeepTime+setsPieceTime)
	if err := done(wire.ReadJSON(s, maxHeader, &a)); err != nil {
		return err
	}
	if !a.Kept {
		return fmt.Errorf("%w: %.1024s", ErrNotKept, a.Text)
	}
	return nil
}

// ReceiveSets takes what a giver tells over s. may says whether it may, before its bytes are read; keep makes it durable, and moved, which may be
// nil, is called when some of it has come. An error of either is told to the giver. s is closed or reset when it returns. Errors: ErrHeader,
// ErrMalformed, those of may and keep, that of ctx, those of s.
func ReceiveSets(ctx context.Context, s Stream, may func(Sets) error, moved func(), keep func(Sets) error) error {
	answered, err := receiveSets(ctx, s, may, moved, keep)
	if !answered {
		_ = s.Reset()
	} else if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("handoff: hear what is lacking: %w", err)
	}
	return nil
}

func receiveSets(ctx context.Context, s Stream, may func(Sets) error, moved func(), keep func(Sets) error) (answered bool, err error) {
	var h setsHeader
	done := wire.Bound(ctx, s.SetReadDeadline, headerTimeout)
	if err := done(wire.ReadJSON(s, maxHeader, &h)); err != nil {
		return false, err
	}
	if err := h.check(); err != nil {
		return false, err
	}
	x := Sets{VM: h.VM, Attempt: h.Attempt, Position: h.Position}
	refusal := may(x)
	if refusal == nil {
		if x.Sets, err = readSets(ctx, s, h.Length, moved); err != nil {
			return false, err
		}
		if sum := blake3.Sum256(x.Sets); string(sum[:]) != string(h.Hash) {
			return false, fmt.Errorf("the sets aren't what was sent: %w", ErrMalformed)
		}
		refusal = keep(x)
	}
	a := setsAnswer{Kept: refusal == nil}
	if refusal != nil {
		a.Text = replica.Clip(refusal.Error())
	}
	done = wire.Bound(ctx, s.SetWriteDeadline, headerTimeout)
	if err := done(wire.WriteJSON(s, a)); err != nil {
		return false, errors.Join(refusal, err)
	}
	return true, refusal
}

// readSets reads n bytes. Memory is taken as they come.
func readSets(ctx context.Context, s Stream, n int, moved func()) ([]byte, error) {
	var p []byte
	for len(p) < n {
		piece := make([]byte, min(n-len(p), setsPiece))
		done := wire.Bound(ctx, s.SetReadDeadline, setsPieceTime)
		_, err := io.ReadFull(s, piece)
		if err = done(err); err != nil {
			return nil, err
		}
		p = append(p, piece...)
		if moved != nil {
			moved()
		}
	}
	return p, nil
}

func (h setsHeader) check() error {
	switch {
	case h.Version != SetsVersion:
		return fmt.Errorf("version %d: %w", h.Version, ErrHeader)
	case h.VM == "" || len(h.VM) > maxName || h.Attempt == "" || len(h.Attempt) > maxName:
		return fmt.Errorf("VM name of %d bytes, attempt of %d: %w", len(h.VM), len(h.Attempt), ErrHeader)
	case h.Length <= 0 || h.Length > MaxDirty || len(h.Hash) != 32 || h.Position.Term == 0:
		return fmt.Errorf("sets of %d bytes at term %d: %w", h.Length, h.Position.Term, ErrHeader)
	}
	return nil
}
