package pairing

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// DefaultTimeout is how long one connection may take.
const DefaultTimeout = 10 * time.Second

// Result is a successful pairing.
type Result struct {
	Peer  Identity
	Words []string // four words, the same on both screens
}

// Options are those of both sides.
type Options struct {
	// Sign signs with the private key of the own identity. Required; it may be
	// called from several goroutines at once.
	Sign func(msg []byte) ([]byte, error)
	// Store, if not nil, makes a result durable. On the offerer it runs before
	// the joiner is told of success, on the joiner before Join returns. Its
	// error makes the pairing fail.
	Store func(Result) error
	// Timeout is how long one connection may take; 0 is DefaultTimeout.
	Timeout time.Duration
	// Log gets what happens to single connections; nil is nowhere. Neither
	// codes nor keys are logged.
	Log *slog.Logger
}

var errNoSign = errors.New("pairing: no Sign function")

// errStore wraps what Store returned.
var errStore = errors.New("pairing: store the result")

// complete checks the inputs that both sides share and fills in defaults.
func (o *Options) complete(code string, me Identity) (prs []byte, err error) {
	c, err := Normalise(code)
	if err != nil {
		return nil, err
	}
	if err := me.check(); err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	if o.Sign == nil {
		return nil, errNoSign
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return []byte(c), nil
}

// store calls Store, if there is one.
func (o *Options) store(r Result) error {
	if o.Store == nil {
		return nil
	}
	if err := o.Store(r); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return nil
}

// The roles, as CPace's associated data and in signatures.
var (
	joiner  = []byte("joiner")
	offerer = []byte("offerer")
)

// session is one run of the protocol, from either side.
type session struct {
	line
	me    Identity
	sign  func([]byte) ([]byte, error)
	mine  []byte // own role
	other []byte

	sid, isk         []byte
	ownShare, shareO []byte // own, the other side's
	binding          []byte // what identities are signed over
	words            []string
}

func newSession(c net.Conn, me Identity, o *Options, mine, other []byte) *session {
	return &session{line: line{c: c}, me: me, sign: o.Sign, mine: mine, other: other}
}

// hello exchanges nonces. The joiner speaks first.
func (s *session) hello() error {
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce) // never fails: the program ends instead
	theirs, err := s.swap(msgHello, append([]byte(magic), nonce...))
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	if v := len(magic) - 1; string(theirs[:v]) != magic[:v] {
		return fmt.Errorf("hello from something else: %w", ErrProtocol)
	} else if theirs[v] != magic[v] {
		return fmt.Errorf("hello of version %d: %w", theirs[v], ErrVersion)
	}
	theirs = theirs[len(magic):]
	if s.joins() {
		s.sid = append(nonce, theirs...)
	} else {
		s.sid = append(append([]byte(nil), theirs...), nonce...)
	}
	return nil
}

// shares does CPace's exchange.
func (s *session) shares(prs []byte) error {
	// Who they are, neither side may tell yet: only the roles can be bound.
	ci := appendLV(nil, []byte("tagalong pairing v1"), joiner, offerer)
	y := newScalar()
	s.ownShare = share(y, generator(prs, ci, s.sid))
	theirs, err := s.swap(msgShare, s.ownShare)
	if err != nil {
		return fmt.Errorf("share: %w", err)
	}
	s.shareO = theirs
	k, err := secret(y, theirs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	t := transcriptIR(s.ownShare, s.mine, s.shareO, s.other)
	if !s.joins() {
		t = transcriptIR(s.shareO, s.other, s.ownShare, s.mine)
	}
	s.isk = sessionKey(s.sid, k, t)
	y.Zero()
	return nil
}

func (s *session) joins() bool { return string(s.mine) == string(joiner) }

// swap sends p and reads as much, the joiner first.
func (s *session) swap(kind byte, p []byte) ([]byte, error) {
	if s.joins() {
		if err := s.write(kind, p); err != nil {
			return nil, err
		}
		return s.read(kind, len(p))
	}
	theirs, err := s.read(kind, len(p))
	if err != nil {
		return nil, err
	}
	return theirs, s.write(kind, p)
}

// proveKey sends the own confirmation.
func (s *session) proveKey() error {
	if err := s.write(msgConfirm, confirmation(s.sid, s.isk, s.ownShare, s.mine)); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	return nil
}

// readProof reads the other side's confirmation. Whether it is right, is for
// proofHolds to say.
func (s *session) readProof() ([]byte, error) {
	p, err := s.read(msgConfirm, macLen)
	if err != nil {
		return nil, fmt.Errorf("confirmation: %w", err)
	}
	return p, nil
}

func (s *session) proofHolds(proof []byte) bool {
	return hmac.Equal(proof, confirmation(s.sid, s.isk, s.shareO, s.other))
}

// keys derives everything else from the confirmed key.
func (s *session) keys() error {
	salt := sha512.Sum512(s.said)
	prk, err := hkdf.Extract(sha512.New, s.isk, salt[:])
	if err != nil {
		return fmt.Errorf("derive keys: %w", err)
	}
	derive := func(info string, n int) []byte {
		p, derr := hkdf.Expand(sha512.New, prk, "tagalong pairing v1 "+info, n)
		err = errors.Join(err, derr)
		return p
	}
	toOfferer := derive("joiner to offerer", chacha20poly1305.KeySize)
	toJoiner := derive("offerer to joiner", chacha20poly1305.KeySize)
	s.binding = derive("identity", 64)
	words := derive("words", wordCount)
	if err != nil {
		return fmt.Errorf("derive keys: %w", err)
	}
	s.words = wordsOf(words)
	if !s.joins() {
		toOfferer, toJoiner = toJoiner, toOfferer
	}
	if s.send, err = newSealer(toOfferer); err == nil {
		s.get, err = newSealer(toJoiner)
	}
	return err
}

func newSealer(key []byte) (*sealer, error) {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("cipher: %w", err)
	}
	return &sealer{aead: a}, nil
}

func (s *session) tellIdentity() error {
	p, err := s.me.encode(s.mine, s.binding, s.sign)
	if err != nil {
		return err
	}
	if err := s.writeSealed(msgIdentity, p); err != nil {
		return fmt.Errorf("send identity: %w", err)
	}
	return nil
}

func (s *session) readIdentity() (Identity, error) {
	p, err := s.readSealed(msgIdentity)
	if err != nil {
		return Identity{}, fmt.Errorf("receive identity: %w", err)
	}
	id, err := decodeIdentity(s.other, s.binding, p)
	if err != nil {
		return Identity{}, fmt.Errorf("receive identity: %w", err)
	}
	if id.ID == s.me.ID {
		return Identity{}, ErrSelf
	}
	return id, nil
}
