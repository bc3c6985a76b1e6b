package pairing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"errors"

	"github.com/gtank/ristretto255"
)

// This file is CPace, cipher suite CPACE-RISTR255-SHA512, in its
// initiator/responder form: draft-irtf-cfrg-cpace-21, sections 7, 8.1, 8.3 and
// 10.4. It is checked against the draft's appendix B.3.

const (
	cpaceDSI      = "CPaceRistretto255"
	cpaceBlock    = 128 // input block of SHA-512, bytes
	cpaceShareLen = 32  // bytes
)

// errPoint: a share that is no valid element, or the neutral one.
var errPoint = errors.New("invalid share")

// appendLV appends each part with its length before it, as LEB128.
func appendLV(b []byte, parts ...[]byte) []byte {
	for _, p := range parts {
		n := len(p)
		for n >= 0x80 {
			b = append(b, byte(n)|0x80)
			n >>= 7
		}
		b = append(b, byte(n))
		b = append(b, p...)
	}
	return b
}

// generatorString is the draft's generator_string for SHA-512.
func generatorString(prs, ci, sid []byte) []byte {
	dsi := []byte(cpaceDSI)
	pad := max(0, cpaceBlock-len(appendLV(nil, prs))-len(appendLV(nil, dsi))-1)
	return appendLV(nil, dsi, prs, make([]byte, pad), ci, sid)
}

func generator(prs, ci, sid []byte) *ristretto255.Element {
	h := sha512.Sum512(generatorString(prs, ci, sid))
	return ristretto255.NewElement().FromUniformBytes(h[:])
}

func newScalar() *ristretto255.Scalar {
	var b [64]byte
	_, _ = rand.Read(b[:]) // never fails: the program ends instead
	return ristretto255.NewScalar().FromUniformBytes(b[:])
}

// share is the public value for the secret y.
func share(y *ristretto255.Scalar, g *ristretto255.Element) []byte {
	return ristretto255.NewElement().ScalarMult(y, g).Encode(nil)
}

// secret is the draft's scalar_mult_vfy, with its neutral element as an error.
func secret(y *ristretto255.Scalar, theirs []byte) ([]byte, error) {
	p := ristretto255.NewElement()
	if len(theirs) != cpaceShareLen || p.Decode(theirs) != nil {
		return nil, errPoint
	}
	k := ristretto255.NewElement().ScalarMult(y, p)
	if k.Equal(ristretto255.NewElement()) == 1 {
		return nil, errPoint
	}
	return k.Encode(nil), nil
}

// transcriptIR is what both sides have said: shares and associated data,
// initiator first.
func transcriptIR(ya, ada, yb, adb []byte) []byte {
	return appendLV(nil, ya, ada, yb, adb)
}

// sessionKey is the draft's ISK.
func sessionKey(sid, k, transcript []byte) []byte {
	in := appendLV(nil, []byte(cpaceDSI+"_ISK"), sid, k)
	h := sha512.Sum512(append(in, transcript...))
	return h[:]
}

// confirmation is the authenticator of section 10.4 over the message that its
// sender sent before.
func confirmation(sid, isk, share, ad []byte) []byte {
	in := append([]byte("CPaceMac"), sid...)
	key := sha512.Sum512(append(in, isk...))
	m := hmac.New(sha512.New, key[:])
	m.Write(appendLV(nil, share, ad))
	return m.Sum(nil)
}
