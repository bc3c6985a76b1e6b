package pairing

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/gtank/ristretto255"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scalar(t *testing.T, s string) *ristretto255.Scalar {
	t.Helper()
	y := ristretto255.NewScalar()
	if err := y.Decode(unhex(t, s)); err != nil {
		t.Fatal(err)
	}
	return y
}

func same(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("%s:\n%x, want\n%s", what, got, strings.Join(strings.Fields(want), ""))
	}
}

// The test vectors of draft-irtf-cfrg-cpace-21, appendix B.3.
func TestDraftVectors(t *testing.T) {
	prs := []byte("Password")
	ci := []byte("\x0bA_initiator\x0bB_responder")
	sid := unhex(t, "7e4b4791d6a8ef019b936c79fb7f2c57")
	same(t, "generator string", generatorString(prs, ci, sid), `
		11435061636552697374726574746f3235350850617373776f726464
		00000000000000000000000000000000000000000000000000000000
		00000000000000000000000000000000000000000000000000000000
		00000000000000000000000000000000000000000000000000000000
		00000000000000000000000000000000180b415f696e69746961746f
		720b425f726573706f6e646572107e4b4791d6a8ef019b936c79fb7f
		2c57`)
	g := generator(prs, ci, sid)
	same(t, "generator", g.Encode(nil), "222b6b195fe84b1652badb6f6a3ae3d24341e7306967f0b8115b40d5698c7e56")

	ya := scalar(t, "da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08")
	yb := scalar(t, "d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d")
	sa, sb := share(ya, g), share(yb, g)
	same(t, "share of A", sa, "d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0eec482b9157")
	same(t, "share of B", sb, "3ea7e0b19560d7c0b0f5734f63b955286dfa8232b5ebe63324e2d9e7433f7258")

	k, err := secret(ya, sb)
	if err != nil {
		t.Fatal(err)
	}
	k2, err := secret(yb, sa)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "secret at A", k, "80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc9887c8b40f")
	same(t, "secret at B", k2, "80b69a8a76457ab6a4d7f887a4bf6b55a2f80ac19c333f917a05fc9887c8b40f")

	tr := transcriptIR(sa, []byte("ADa"), sb, []byte("ADb"))
	same(t, "transcript", tr, `
		20d6bac480f2c386c394efc7c47adb9925dcd2630b64f240c50f8d0e
		ec482b915703414461203ea7e0b19560d7c0b0f5734f63b955286dfa
		8232b5ebe63324e2d9e7433f725803414462`)
	same(t, "session key", sessionKey(sid, k, tr), `
		b69effbf61b51d56401c0f65601abe428de8206feaaf0e32198896dc
		ae7b35cd2b38950a39dfd5d4a79164614c2984f7daa460b588c1e80c
		3fa2068af7900447`)
}

func TestDraftScalarMultiplication(t *testing.T) {
	s := scalar(t, "7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88cf538a05")
	k, err := secret(s, unhex(t, "2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "valid", k, "7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e7f6b600e")
	for name, y := range map[string]string{
		"not an element":      "2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c",
		"the neutral element": "0000000000000000000000000000000000000000000000000000000000000000",
		"short":               "2c3c6b",
		"empty":               "",
	} {
		if _, err := secret(s, unhex(t, y)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// The draft's prepend_len, at the borders of its encoding.
func TestLengthPrefix(t *testing.T) {
	for n, want := range map[int]string{0: "00", 127: "7f", 128: "8001", 16383: "ff7f", 16384: "808001"} {
		if got := hex.EncodeToString(appendLV(nil, make([]byte, n))[:len(want)/2]); got != want {
			t.Errorf("length %d is %s, want %s", n, got, want)
		}
	}
}

func TestConfirmationsDiffer(t *testing.T) {
	sid, isk, y := []byte("sid"), []byte("isk"), make([]byte, cpaceShareLen)
	a, b := confirmation(sid, isk, y, joiner), confirmation(sid, isk, y, offerer)
	if len(a) != macLen || bytes.Equal(a, b) {
		t.Error("a reflected confirmation would be taken")
	}
	if bytes.Equal(a, confirmation(sid, []byte("other"), y, joiner)) {
		t.Error("the confirmation doesn't depend on the key")
	}
}

func TestWordsAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range words {
		if seen[w] || len(w) < 3 || strings.ToLower(w) != w {
			t.Errorf("word %q", w)
		}
		seen[w] = true
	}
	if len(seen) != 256 {
		t.Errorf("%d words", len(seen))
	}
}
