package p2p

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
)

func TestKeyIsCreatedOnceAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "key")
	keys := make([]crypto.PrivKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := loadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = k
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, k := range keys {
		if !k.Equals(keys[0]) {
			t.Fatal("processes that start together get different identities")
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("folder holds %v, %v; want only the key", left, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestExposedKeyIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing here")
	}
	path := filepath.Join(t.TempDir(), "key")
	if _, err := loadOrCreateKey(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := loadOrCreateKey(path); !errors.Is(err, ErrKeyExposed) {
			t.Errorf("mode %v: %v, want ErrKeyExposed", mode, err)
		}
	}
}

func TestDamagedKeyIsRefusedAndKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := loadOrCreateKey(path); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, bad []byte, want error) {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadOrCreateKey(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if left, err := os.ReadFile(path); err != nil || string(left) != string(bad) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		want := ErrKeyFile
		if i == len(keyFamily) {
			want = ErrKeyVersion
		}
		check("flipped", bad, want)
	}
	for i := range good {
		check("cut", good[:i], ErrKeyFile)
	}
	check("newer", []byte(strings.Replace(string(good), "v1", "v2", 1)), ErrKeyVersion)
	check("huge", make([]byte, maxKeyFile+1), ErrKeyFile)
}

func TestSignatures(t *testing.T) {
	a, b := newDevice(t), newDevice(t)
	msg := []byte("tagalong test\x00payload")
	sig, err := a.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(a.ID(), msg, sig); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"other message":   Verify(a.ID(), append([]byte("x"), msg...), sig),
		"other device":    Verify(b.ID(), msg, sig),
		"cut signature":   Verify(a.ID(), msg, sig[:63]),
		"empty signature": Verify(a.ID(), msg, nil),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
	for _, id := range []string{"", "x", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", a.ID() + " ", strings.Repeat("1", 10000)} {
		if err := Verify(id, msg, sig); !errors.Is(err, ErrID) {
			t.Errorf("id %.20q: %v, want ErrID", id, err)
		}
	}
	for _, bad := range []string{"libp2p-tls-handshake:abc", "noise-libp2p-static-key:abc", "\x12libp2p-peer-record"} {
		if _, err := a.Sign([]byte(bad)); !errors.Is(err, ErrReserved) {
			t.Errorf("sign %q: %v, want ErrReserved", bad, err)
		}
	}
	if _, err := a.Sign(make([]byte, maxSigned+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("huge message: %v", err)
	}
}
