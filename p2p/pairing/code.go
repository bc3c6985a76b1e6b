package pairing

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"
	"unicode"
)

// codeDigits is the number of digits of a code.
const codeDigits = 8

// NewCode returns a fresh code as it is shown, like "4821-0937". The error is
// the random generator's.
func NewCode() (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
	if err != nil {
		return "", fmt.Errorf("pairing: new code: %w", err)
	}
	s := fmt.Sprintf("%08d", n.Int64())
	return s[:4] + "-" + s[4:], nil
}

// Normalise returns the eight digits of a code as it was typed: spaces and
// dashes of any kind may stand anywhere. Anything else is ErrBadCode.
func Normalise(code string) (string, error) {
	if len(code) > 64 {
		return "", fmt.Errorf("%d bytes: %w", len(code), ErrBadCode)
	}
	var b strings.Builder
	for _, r := range code {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case unicode.IsSpace(r) || unicode.Is(unicode.Pd, r):
		default:
			return "", fmt.Errorf("a character that is no digit: %w", ErrBadCode)
		}
	}
	if b.Len() != codeDigits {
		return "", fmt.Errorf("%d digits, %d expected: %w", b.Len(), codeDigits, ErrBadCode)
	}
	return b.String(), nil
}
