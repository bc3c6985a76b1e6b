package pairing

import (
	"crypto/rand"
	"encoding/json"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// FuzzIdentity feeds decrypted identity messages: what comes through must be
// valid, whatever a device that knows the code sends.
func FuzzIdentity(f *testing.F) {
	key, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	id, err := peer.IDFromPublicKey(pub)
	if err != nil {
		f.Fatal(err)
	}
	binding := []byte("binding")
	good, err := Identity{ID: id.String(), Name: "n", Addrs: []string{"a"}}.encode(joiner, binding, key.Sign)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := decodeIdentity(joiner, binding, good); err != nil {
		f.Fatalf("good identity: %v", err)
	}
	if _, err := decodeIdentity(offerer, binding, good); err == nil {
		f.Fatal("the signature of one role counts for the other")
	}
	if _, err := decodeIdentity(joiner, []byte("another"), good); err == nil {
		f.Fatal("the signature of one session counts for another")
	}
	unsigned, err := json.Marshal(signed{Identity: json.RawMessage(`{"id":"` + id.String() + `","name":"n"}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(unsigned)
	f.Add([]byte(`{"identity":{"id":"12D3KooW"}}`))
	f.Add([]byte(`{"identity":null}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := decodeIdentity(joiner, binding, in)
		if err == nil && got.check() != nil {
			t.Fatalf("%+v came through", got)
		}
	})
}
