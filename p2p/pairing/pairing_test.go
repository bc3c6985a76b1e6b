package pairing_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/pairing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const code = "4821-0937"

// device is an identity with its key.
type device struct {
	pairing.Identity
	key crypto.PrivKey
}

func newDevice(t testing.TB, name string) device {
	t.Helper()
	key, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return device{pairing.Identity{ID: id.String(), Name: name, Addrs: []string{"/ip4/192.0.2.1/tcp/4001"}}, key}
}

// options have a timeout that only a defect comes to.
func (d device) options() pairing.Options {
	return pairing.Options{Sign: d.key.Sign, Timeout: 2 * time.Minute}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// outcome is what one side returned.
type outcome struct {
	pairing.Result
	err error
}

// offer opens a window and returns its address and what it will return.
func offer(t testing.TB, d device, o pairing.Options) (addr string, end <-chan outcome, cancel func()) {
	t.Helper()
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	c := make(chan outcome, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		r, err := pairing.Offer(ctx, l, code, d.Identity, o)
		c <- outcome{r, err}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return l.Addr().String(), c, stop
}

func soon(t testing.TB, c <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-c:
		return o
	case <-time.After(2 * time.Minute):
		t.Fatal("the other side didn't come to an end")
		return outcome{}
	}
}

func TestPairing(t *testing.T) {
	o, j := newDevice(t, "offerer"), newDevice(t, "joiner")
	var order []string
	store := func(who string) func(pairing.Result) error {
		return func(pairing.Result) error { order = append(order, who); return nil }
	}
	oo, jo := o.options(), j.options()
	oo.Store, jo.Store = store("offerer"), store("joiner")
	addr, end, _ := offer(t, o, oo)
	r, err := pairing.Join(t.Context(), addr, " 4821 0937 ", j.Identity, jo)
	if err != nil {
		t.Fatal(err)
	}
	other := soon(t, end)
	if other.err != nil {
		t.Fatal(other.err)
	}
	if !reflect.DeepEqual(r.Peer, o.Identity) || !reflect.DeepEqual(other.Peer, j.Identity) {
		t.Errorf("the sides know %+v and %+v", r.Peer, other.Peer)
	}
	if len(r.Words) != 4 || !reflect.DeepEqual(r.Words, other.Words) {
		t.Errorf("the sides show %q and %q", r.Words, other.Words)
	}
	if !reflect.DeepEqual(order, []string{"offerer", "joiner"}) {
		t.Errorf("stored in the order %q", order)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the door is still open")
	}
}

func TestWordsDifferEachTime(t *testing.T) {
	seen := map[string]bool{}
	for range 5 {
		o, j := newDevice(t, "o"), newDevice(t, "j")
		addr, end, _ := offer(t, o, o.options())
		r, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options())
		if err != nil {
			t.Fatal(err)
		}
		soon(t, end)
		seen[strings.Join(r.Words, " ")] = true
	}
	if len(seen) != 5 {
		t.Errorf("words: %v", seen)
	}
}

func TestWrongCodes(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	addr, end, _ := offer(t, o, o.options())
	for i := range 3 {
		_, err := pairing.Join(t.Context(), addr, fmt.Sprintf("0000-000%d", i), j.Identity, j.options())
		if !errors.Is(err, pairing.ErrWrongCode) {
			t.Errorf("try %d: %v, want ErrWrongCode", i, err)
		}
	}
	if got := soon(t, end); !errors.Is(got.err, pairing.ErrTooManyTries) {
		t.Errorf("the offerer: %v, want ErrTooManyTries", got.err)
	}
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); err == nil {
		t.Error("the right code worked after three wrong ones")
	}
}

func TestRightCodeAfterTwoWrongOnes(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	addr, end, _ := offer(t, o, o.options())
	for range 2 {
		if _, err := pairing.Join(t.Context(), addr, "0000-0000", j.Identity, j.options()); !errors.Is(err, pairing.ErrWrongCode) {
			t.Fatal(err)
		}
	}
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); err != nil {
		t.Error(err)
	}
	if got := soon(t, end); got.err != nil {
		t.Error(got.err)
	}
}

// Many guesses at once are not more than three.
func TestParallelGuesses(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	addr, end, _ := offer(t, o, o.options())
	var wg sync.WaitGroup
	var mu sync.Mutex
	wrong := 0
	for i := range 20 {
		wg.Go(func() {
			_, err := pairing.Join(t.Context(), addr, fmt.Sprintf("0000-00%02d", i), j.Identity, j.options())
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, pairing.ErrWrongCode) {
				wrong++
			}
			if err == nil {
				t.Error("a wrong code worked")
			}
		})
	}
	wg.Wait()
	if got := soon(t, end); !errors.Is(got.err, pairing.ErrTooManyTries) {
		t.Errorf("the offerer: %v", got.err)
	}
	if wrong > 3 {
		t.Errorf("%d guesses were judged", wrong)
	}
}

// A stranger who stalls at the door, at any point, and many of them.
func TestStallingStrangers(t *testing.T) {
	o, j := newDevice(t, "o"), newDevice(t, "j")
	addr, end, _ := offer(t, o, o.options())
	for i := range 40 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if i%2 == 0 {
			if _, err := c.Write([]byte{0, 0, 0, 33, 1, 't'}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); err != nil {
		t.Fatal(err)
	}
	if got := soon(t, end); got.err != nil {
		t.Error(got.err)
	}
}

func TestStrangerIsDroppedInTime(t *testing.T) {
	o := newDevice(t, "o")
	oo := o.options()
	oo.Timeout = 20 * time.Millisecond
	addr, _, _ := offer(t, o, oo)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the stranger was not dropped: %v", err)
	}
}

func TestWindowEndsWithItsContext(t *testing.T) {
	o := newDevice(t, "o")
	addr, end, cancel := offer(t, o, o.options())
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	cancel()
	if got := soon(t, end); !errors.Is(got.err, context.Canceled) {
		t.Errorf("cancelled: %v", got.err)
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	l := listen(t)
	j := newDevice(t, "j")
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan outcome, 1)
	go func() {
		r, err := pairing.Join(ctx, l.Addr().String(), code, j.Identity, j.options())
		end <- outcome{r, err}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	cancel()
	if got := soon(t, end); !errors.Is(got.err, context.Canceled) {
		t.Errorf("cancelled: %v", got.err)
	}
}

func TestIdentityMustBeOfItsKey(t *testing.T) {
	o, j, thief := newDevice(t, "o"), newDevice(t, "j"), newDevice(t, "thief")
	addr, end, _ := offer(t, o, o.options())
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, thief.options()); !errors.Is(err, pairing.ErrIdentity) {
		t.Errorf("the joiner with another's ID: %v", err)
	}
	// The window is still open for the honest device.
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); err != nil {
		t.Error(err)
	}
	if got := soon(t, end); got.err != nil || got.Peer.ID != j.ID {
		t.Errorf("the offerer: %+v, %v", got.Peer, got.err)
	}
	addr, _, _ = offer(t, o, thief.options())
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); !errors.Is(err, pairing.ErrIdentity) {
		t.Errorf("the offerer with another's ID: %v", err)
	}
}

func TestSameDevice(t *testing.T) {
	o := newDevice(t, "o")
	addr, _, _ := offer(t, o, o.options())
	if _, err := pairing.Join(t.Context(), addr, code, o.Identity, o.options()); !errors.Is(err, pairing.ErrSelf) {
		t.Errorf("%v, want ErrSelf", err)
	}
}

func TestFailureToStore(t *testing.T) {
	full := errors.New("disk full")
	fail := func(pairing.Result) error { return full }
	o, j := newDevice(t, "o"), newDevice(t, "j")
	oo := o.options()
	oo.Store = fail
	addr, end, _ := offer(t, o, oo)
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); !errors.Is(err, pairing.ErrPeerFailed) {
		t.Errorf("the joiner: %v, want ErrPeerFailed", err)
	}
	if got := soon(t, end); !errors.Is(got.err, full) {
		t.Errorf("the offerer: %v", got.err)
	}
	jo := j.options()
	jo.Store = fail
	addr, _, _ = offer(t, o, o.options())
	if _, err := pairing.Join(t.Context(), addr, code, j.Identity, jo); !errors.Is(err, full) {
		t.Errorf("the joiner: %v", err)
	}
}

func TestOnlyOneJoinerWins(t *testing.T) {
	o := newDevice(t, "o")
	stored := 0
	oo := o.options()
	oo.Store = func(pairing.Result) error { stored++; return nil }
	addr, end, _ := offer(t, o, oo)
	var wg sync.WaitGroup
	won := make(chan string, 10)
	for i := range 5 {
		j := newDevice(t, fmt.Sprint("j", i))
		wg.Go(func() {
			if _, err := pairing.Join(t.Context(), addr, code, j.Identity, j.options()); err == nil {
				won <- j.ID
			}
		})
	}
	wg.Wait()
	got := soon(t, end)
	if got.err != nil || stored != 1 || len(won) != 1 || <-won != got.Peer.ID {
		t.Errorf("%d stored, %d more winners: %v", stored, len(won), got.err)
	}
}

func TestBadInputs(t *testing.T) {
	d := newDevice(t, "d")
	rsa, pub, err := crypto.GenerateKeyPair(crypto.RSA, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaID, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*pairing.Identity)) pairing.Identity {
		id := d.Identity
		f(&id)
		return id
	}
	for name, c := range map[string]struct {
		code string
		id   pairing.Identity
		o    pairing.Options
		want error
	}{
		"code":       {"1234", d.Identity, d.options(), pairing.ErrBadCode},
		"no sign":    {code, d.Identity, pairing.Options{}, nil},
		"no ID":      {code, change(func(i *pairing.Identity) { i.ID = "" }), d.options(), pairing.ErrIdentity},
		"RSA ID":     {code, change(func(i *pairing.Identity) { i.ID = rsaID.String() }), pairing.Options{Sign: rsa.Sign}, pairing.ErrIdentity},
		"no name":    {code, change(func(i *pairing.Identity) { i.Name = "" }), d.options(), pairing.ErrIdentity},
		"long name":  {code, change(func(i *pairing.Identity) { i.Name = strings.Repeat("x", 129) }), d.options(), pairing.ErrIdentity},
		"escape":     {code, change(func(i *pairing.Identity) { i.Name = "a\x1b[2J" }), d.options(), pairing.ErrIdentity},
		"override":   {code, change(func(i *pairing.Identity) { i.Name = "a\u202eb" }), d.options(), pairing.ErrIdentity},
		"not UTF-8":  {code, change(func(i *pairing.Identity) { i.Name = "\xff" }), d.options(), pairing.ErrIdentity},
		"addresses":  {code, change(func(i *pairing.Identity) { i.Addrs = make([]string, 65) }), d.options(), pairing.ErrIdentity},
		"no address": {code, change(func(i *pairing.Identity) { i.Addrs = []string{""} }), d.options(), pairing.ErrIdentity},
	} {
		_, oerr := pairing.Offer(t.Context(), listen(t), c.code, c.id, c.o)
		_, jerr := pairing.Join(t.Context(), "127.0.0.1:1", c.code, c.id, c.o)
		for _, err := range []error{oerr, jerr} {
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
	}
}
