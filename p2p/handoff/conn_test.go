package handoff_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"tagalong.org/tagalong/p2p/handoff"
	"tagalong.org/tagalong/p2p/wire"
	"tagalong.org/tagalong/p2p/wire/wiretest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// vocabulary has one message of each type, every field filled.
var vocabulary = []handoff.Msg{
	{VM: "v", Attempt: "a", Body: handoff.Ask{Taker: handoff.Facts{Hypervisor: "8.2", Accel: "kvm", CPUModels: []string{"x", "y"}, FreeBytes: 1, FreeMemory: 2}}},
	{VM: "v", Body: handoff.Invite{}},
	{VM: "v", Ask: "k", Body: handoff.Refuse{Reason: "busy"}},
	{VM: "v", Ask: "k", Attempt: "a", Body: handoff.Offer{Kind: handoff.KindTeleport, Term: 3}},
	{VM: "v", Attempt: "a", Body: handoff.Ready{}},
	{VM: "v", Attempt: "a", Body: handoff.Progress{Switch: json.RawMessage(`{"phase":"memory"}`)}},
	{VM: "v", Attempt: "a", Body: handoff.Loaded{}},
	{VM: "v", Attempt: "a", Body: handoff.Transfer{Record: json.RawMessage(`{"term":4}`), Live: true, GuestHeld: true, StoodNS: 7, Dirty: []byte("dirty")}},
	{VM: "v", Attempt: "a", Body: handoff.Active{Term: 4}},
	{VM: "v", Attempt: "a", Body: handoff.Returned{Record: json.RawMessage(`{"term":5}`), Live: true}},
	{VM: "v", Attempt: "a", Body: handoff.Abort{Reason: "cancelled"}},
	{VM: "v", Attempt: "a", Body: handoff.Aborted{Reason: "died"}},
	{VM: "v", Attempt: "a", Body: handoff.Query{}},
	{VM: "v", Ask: "k", Attempt: "a", Body: handoff.Cancel{}},
}

// opened returns two ends that have greeted each other.
func opened(t *testing.T, sa, sb handoff.Stream) (a, b *handoff.Conn) {
	t.Helper()
	got := make(chan *handoff.Conn, 1)
	go func() {
		c, err := handoff.Open(t.Context(), sb)
		if err != nil {
			t.Errorf("open: %v", err)
		}
		got <- c
	}()
	a, err := handoff.Open(t.Context(), sa)
	if err != nil {
		t.Fatal(err)
	}
	return a, <-got
}

func TestEveryMessageArrives(t *testing.T) {
	for name, pair := range wiretest.Kinds {
		t.Run(name, func(t *testing.T) {
			sa, sb := pair(t)
			a, b := opened(t, sa, sb)
			sent := make(chan error, 1)
			go func() {
				for _, m := range vocabulary {
					if err := a.Send(t.Context(), m); err != nil {
						sent <- err
						return
					}
				}
				sent <- a.Close()
			}()
			for _, want := range vocabulary {
				got, err := b.Recv(t.Context())
				if err != nil {
					t.Fatalf("%s: %v", want.Body.Type(), err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
			if _, err := b.Recv(t.Context()); err != io.EOF {
				t.Errorf("after the last: %v, want io.EOF", err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLargeDirtySets(t *testing.T) {
	sa, sb := wiretest.TCP(t)
	a, b := opened(t, sa, sb)
	dirty := bytes.Repeat([]byte("0123456789"), 1_000_000)
	sent := make(chan error, 1)
	go func() {
		sent <- a.Send(t.Context(), handoff.Msg{VM: "v", Attempt: "a", Body: handoff.Transfer{Record: json.RawMessage(`1`), Dirty: dirty}})
	}()
	m, err := b.Recv(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Body.(handoff.Transfer).Dirty; !bytes.Equal(got, dirty) {
		t.Errorf("%d bytes of dirty sets arrived", len(got))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	tooMuch := handoff.Transfer{Record: json.RawMessage(`1`), Dirty: make([]byte, handoff.MaxDirty+1)}
	if err := a.Send(t.Context(), handoff.Msg{VM: "v", Attempt: "a", Body: tooMuch}); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("too much: %v", err)
	}
}

func TestNonsenseIsNotSent(t *testing.T) {
	sa, sb := wiretest.TCP(t)
	a, _ := opened(t, sa, sb)
	for name, m := range map[string]handoff.Msg{
		"no body":          {VM: "v", Attempt: "a"},
		"no VM":            {Attempt: "a", Body: handoff.Query{}},
		"long attempt":     {VM: "v", Attempt: strings.Repeat("a", 257), Body: handoff.Query{}},
		"long ask":         {VM: "v", Ask: strings.Repeat("a", 257), Body: handoff.Query{}},
		"long VM":          {VM: strings.Repeat("v", 257), Attempt: "a", Body: handoff.Query{}},
		"strange kind":     {VM: "v", Attempt: "a", Body: handoff.Offer{Kind: "x", Term: 1}},
		"no term":          {VM: "v", Attempt: "a", Body: handoff.Offer{Kind: handoff.KindBaton}},
		"no record":        {VM: "v", Attempt: "a", Body: handoff.Transfer{}},
		"nothing returned": {VM: "v", Attempt: "a", Body: handoff.Returned{}},
		"term 0":           {VM: "v", Attempt: "a", Body: handoff.Active{}},
		"no reason":        {VM: "v", Attempt: "a", Body: handoff.Refuse{}},
	} {
		if err := a.Send(t.Context(), m); !errors.Is(err, handoff.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
}

// say sends raw JSON as a message.
func say(t *testing.T, s handoff.Stream, msgs ...string) {
	t.Helper()
	for _, m := range msgs {
		if err := wire.WriteFrame(s, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

const greeting = `{"protocol":"/tagalong/handoff/1","version":1,"oldest":1}`

func TestStrangeMessagesLeaveTheConnUsable(t *testing.T) {
	sa, sb := wiretest.TCP(t)
	say(t, sa, greeting)
	b, err := handoff.Open(t.Context(), sb)
	if err != nil {
		t.Fatal(err)
	}
	say(t, sa,
		`{"v":1,"type":"dance","vm":"v","attempt":"a","body":{}}`,
		`{"v":2,"type":"query","vm":"v","attempt":"a"}`,
		`{"v":1,"type":"offer","vm":"v","attempt":"a","body":{"kind":"x"}}`,
		`{"v":1,"type":"active","vm":"v","attempt":"a","body":{"term":"one"}}`,
		`{"v":1,"type":"query","vm":"","attempt":"a"}`,
		`{"v":1,"type":"query","vm":"v","attempt":"a","news":1,"body":{"more":2}}`)
	if _, err := b.Recv(t.Context()); !errors.Is(err, handoff.ErrUnknownType) || !strings.Contains(err.Error(), "dance") {
		t.Errorf("unknown type: %v", err)
	}
	for i := range 4 {
		if _, err := b.Recv(t.Context()); !errors.Is(err, handoff.ErrMalformed) {
			t.Errorf("malformed %d: %v", i, err)
		}
	}
	m, err := b.Recv(t.Context())
	if err != nil || !reflect.DeepEqual(m, handoff.Msg{VM: "v", Attempt: "a", Body: handoff.Query{}}) {
		t.Errorf("with unknown fields: %+v, %v", m, err)
	}
}

func TestOpenRefusesStrangers(t *testing.T) {
	for _, g := range []string{`{"protocol":"/tagalong/mirror/1","version":1,"oldest":1}`, `{"protocol":"/tagalong/handoff/1","version":3,"oldest":2}`} {
		sa, sb := wiretest.TCP(t)
		say(t, sa, g)
		if _, err := handoff.Open(t.Context(), sb); !errors.Is(err, wire.ErrVersion) {
			t.Errorf("%s: %v, want ErrVersion", g, err)
		}
	}
}

func FuzzRecv(f *testing.F) {
	frame := func(msgs ...string) []byte {
		var b bytes.Buffer
		for _, m := range msgs {
			if err := wire.WriteFrame(&b, []byte(m)); err != nil {
				f.Fatal(err)
			}
		}
		return b.Bytes()
	}
	for _, m := range vocabulary {
		body, err := json.Marshal(m.Body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame(`{"v":1,"type":"` + string(m.Body.Type()) + `","vm":"v","attempt":"a","body":` + string(body) + `}`))
	}
	f.Add(frame(`{"v":1,"type":"transfer","vm":"v","attempt":"a","body":{"record":1},"blob":3}`, "abc"))
	f.Add(frame(`{"v":1,"type":"query","vm":"v","attempt":"a","blob":3}`, "abc"))
	f.Add(frame(`{"v":1,"type":"transfer","vm":"v","attempt":"a","body":{"record":1},"blob":-3}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		all := append(frame(greeting), in...)
		c, err := handoff.Open(t.Context(), wiretest.Input{Reader: bytes.NewReader(all)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := handoff.Open(t.Context(), wiretest.Input{Reader: bytes.NewReader(all)})
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			m, err := c.Recv(t.Context())
			if err != nil {
				if errors.Is(err, handoff.ErrMalformed) || errors.Is(err, handoff.ErrUnknownType) || errors.Is(err, wire.ErrMalformed) {
					continue
				}
				return
			}
			if err := out.Send(t.Context(), m); err != nil {
				t.Fatalf("what was received can't be sent: %+v: %v", m, err)
			}
		}
	})
}
