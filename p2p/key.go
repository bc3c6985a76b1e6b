package p2p

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/zeebo/blake3"
)

// The key file has three lines: the header, the private key in base64, and the BLAKE3 of the first two lines in hex.
const (
	keyHeader  = "tagalong device key v1"
	keyFamily  = "tagalong device key v"
	maxKeyFile = 4096
	maxSigned  = 1 << 20
	sigBytes   = 64
)

// loadOrCreateKey reads the identity from path, or makes one there if nothing exists. Two processes that create it at
// the same time end with the same key.
func loadOrCreateKey(path string) (crypto.PrivKey, error) {
	key, err := loadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return loadKey(path)
}

func loadKey(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("load key %s: %w", path, ErrKeyFile)
	}
	if exposed(info) {
		return nil, fmt.Errorf("load key %s: mode %v: %w", path, info.Mode().Perm(), ErrKeyExposed)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	key, err := parseKey(raw)
	if err != nil {
		return nil, fmt.Errorf("load key %s: %w", path, err)
	}
	return key, nil
}

func parseKey(raw []byte) (crypto.PrivKey, error) {
	lines := strings.Split(string(raw), "\n")
	version, ours := strings.CutPrefix(lines[0], keyFamily)
	if _, err := strconv.ParseUint(version, 10, 32); !ours || err != nil {
		return nil, ErrKeyFile
	}
	if lines[0] != keyHeader {
		return nil, fmt.Errorf("%q: %w", lines[0], ErrKeyVersion)
	}
	if len(lines) != 4 || lines[3] != "" || lines[2] != keySum(lines[0], lines[1]) {
		return nil, ErrKeyFile
	}
	secret, err := base64.StdEncoding.DecodeString(lines[1])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(secret)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	return key, nil
}

func keySum(header, body string) string {
	sum := blake3.Sum256([]byte(header + "\n" + body + "\n"))
	return hex.EncodeToString(sum[:])
}

// createKey makes a new identity. It appears under path complete, durable and with mode 0600, or not at all; if
// something is there already, that stays and the error is fs.ErrExist.
func createKey(path string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	secret, err := key.Raw()
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	body := base64.StdEncoding.EncodeToString(secret)
	content := keyHeader + "\n" + body + "\n" + keySum(keyHeader, body) + "\n"

	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	// CreateTemp uses mode 0600.
	f, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	// A link, unlike a rename, never replaces an identity that appeared meanwhile.
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("create key: %w", err)
	}
	return nil
}

// reserved are the beginnings of messages that libp2p signs with the same key. A signature made for somebody else over
// such a message would let them pose as this device.
var reserved = [][]byte{
	[]byte("libp2p-"),
	[]byte("noise-libp2p-"),
}

// Sign signs msg with the device's key. msg should begin with words that say what it is for, and stay below 1 MiB; what
// could be taken for libp2p's own handshake is refused with ErrReserved. msg is not kept.
func (h *Host) Sign(msg []byte) ([]byte, error) {
	if len(msg) > maxSigned {
		return nil, fmt.Errorf("sign %d bytes: %w", len(msg), ErrTooLarge)
	}
	for _, r := range reserved {
		// The records of libp2p begin with the length of their domain string.
		if bytes.HasPrefix(msg, r) || (len(msg) > 0 && bytes.HasPrefix(msg[1:], r)) {
			return nil, fmt.Errorf("sign: %w", ErrReserved)
		}
	}
	sig, err := h.key.Sign(msg)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return sig, nil
}

// Verify checks that the device id signed msg. The key is part of an Ed25519 peer ID, so nothing is looked up. The
// error is ErrID if id isn't such an ID, and ErrSignature if the signature is wrong.
func Verify(id string, msg, sig []byte) error {
	p, err := decodeID(id)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if len(msg) > maxSigned {
		return fmt.Errorf("verify %d bytes: %w", len(msg), ErrTooLarge)
	}
	pub, err := p.ExtractPublicKey()
	if err != nil {
		return fmt.Errorf("verify: %w", ErrID)
	}
	if len(sig) != sigBytes {
		return fmt.Errorf("verify: %w", ErrSignature)
	}
	if ok, err := pub.Verify(msg, sig); err != nil || !ok {
		return fmt.Errorf("verify: %w", ErrSignature)
	}
	return nil
}

// decodeID accepts exactly the canonical text of an Ed25519 peer ID, so that one device never has two names.
func decodeID(id string) (peer.ID, error) {
	if len(id) > 128 {
		return "", ErrID
	}
	p, err := peer.Decode(id)
	if err != nil || p.String() != id {
		return "", ErrID
	}
	pub, err := p.ExtractPublicKey()
	if err != nil || pub.Type() != crypto.Ed25519 {
		return "", ErrID
	}
	return p, nil
}
