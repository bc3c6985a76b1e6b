package pairing

import (
	"encoding/json"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Limits of an identity.
const (
	maxIdentity = 16 << 10 // bytes of JSON
	maxName     = 128      // bytes
	maxAddrs    = 64
	maxAddr     = 256 // bytes each
)

// Identity is what a device tells about itself.
type Identity struct {
	ID    string   `json:"id"`    // libp2p peer ID of an Ed25519 key
	Name  string   `json:"name"`  // what the person calls the device
	Addrs []string `json:"addrs"` // where it can be reached; a hint, not verified
}

// check tells what is wrong with id, if anything.
func (id Identity) check() error {
	p, err := peer.Decode(id.ID)
	if err != nil || p.String() != id.ID {
		return fmt.Errorf("ID isn't a peer ID: %w", ErrIdentity)
	}
	key, err := p.ExtractPublicKey()
	if err != nil || key.Type() != pb.KeyType_Ed25519 {
		return fmt.Errorf("ID isn't that of an Ed25519 key: %w", ErrIdentity)
	}
	if id.Name == "" || len(id.Name) > maxName || !printable(id.Name) {
		return fmt.Errorf("name of %d bytes: %w", len(id.Name), ErrIdentity)
	}
	if len(id.Addrs) > maxAddrs {
		return fmt.Errorf("%d addresses: %w", len(id.Addrs), ErrIdentity)
	}
	for _, a := range id.Addrs {
		if a == "" || len(a) > maxAddr || !printable(a) {
			return fmt.Errorf("address of %d bytes: %w", len(a), ErrIdentity)
		}
	}
	return nil
}

// printable tells whether s can be shown to the person without surprises.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// verify tells whether sig is by the key that id names.
func (id Identity) verify(msg, sig []byte) error {
	p, err := peer.Decode(id.ID)
	if err != nil {
		return fmt.Errorf("ID isn't a peer ID: %w", ErrIdentity)
	}
	key, err := p.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("ID has no key: %w", ErrIdentity)
	}
	if ok, err := key.Verify(msg, sig); err != nil || !ok {
		return fmt.Errorf("signature isn't by the key of the ID: %w", ErrIdentity)
	}
	return nil
}

// signed is an identity with its proof, as it travels. The identity stays in
// the bytes that were signed.
type signed struct {
	Identity json.RawMessage `json:"identity"`
	Sig      []byte          `json:"sig"`
}

// identityText is what the device in the given role signs.
func identityText(role, binding, identity []byte) []byte {
	return appendLV(nil, []byte("tagalong pairing identity v1"), role, binding, identity)
}

// encode makes the content of an identity message.
func (id Identity) encode(role, binding []byte, sign func([]byte) ([]byte, error)) ([]byte, error) {
	raw, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	if len(raw) > maxIdentity {
		return nil, fmt.Errorf("identity of %d bytes: %w", len(raw), ErrIdentity)
	}
	sig, err := sign(identityText(role, binding, raw))
	if err != nil {
		return nil, fmt.Errorf("sign identity: %w", err)
	}
	return json.Marshal(signed{Identity: raw, Sig: sig})
}

// decodeIdentity checks the content of an identity message.
func decodeIdentity(role, binding, p []byte) (Identity, error) {
	var s signed
	if err := json.Unmarshal(p, &s); err != nil {
		return Identity{}, fmt.Errorf("identity isn't JSON: %w", ErrIdentity)
	}
	if len(s.Identity) > maxIdentity {
		return Identity{}, fmt.Errorf("identity of %d bytes: %w", len(s.Identity), ErrIdentity)
	}
	var id Identity
	if err := json.Unmarshal(s.Identity, &id); err != nil {
		return Identity{}, fmt.Errorf("identity isn't JSON: %w", ErrIdentity)
	}
	if err := id.check(); err != nil {
		return Identity{}, err
	}
	return id, id.verify(identityText(role, binding, s.Identity), s.Sig)
}
