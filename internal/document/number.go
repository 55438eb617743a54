package document

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// exact is the greatest whole number up to which a float64 holds every one.
const exact = 1 << 53

// ParseNumber reads a number in a text that people or programs wrote, and reports whether
// it is one: whether it would come back just as it was written, as JSON or as YAML. So the
// version 1.10, which would come back as 1.1, is text, as are 1e3, 007, 0x1F and whole
// numbers beyond 2^53, of which a float64 does not hold every one.
func ParseNumber(text string) (float64, bool) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) || math.Abs(v) > exact && !strings.ContainsAny(text, ".e") {
		return 0, false
	}
	var room [32]byte
	for _, form := range []func([]byte, float64) []byte{AppendYAMLNumber, appendNumber} {
		if string(form(room[:0], v)) == text {
			return v, true
		}
	}
	return 0, false
}

// AppendYAMLNumber appends a number as it is written in YAML: whole numbers without a
// fraction as far as floats are exact, others with a point and a signed exponent, for YAML
// 1.1 readers take 1e20 for text.
func AppendYAMLNumber(b []byte, v float64) []byte {
	switch abs := math.Abs(v); {
	case v == 0 && math.Signbit(v):
		return append(b, "-0.0"...)
	case v == math.Trunc(v) && abs <= exact:
		return strconv.AppendInt(b, int64(v), 10)
	case abs >= 1e-4 && abs < exact:
		return strconv.AppendFloat(b, v, 'f', -1, 64)
	}
	text := strconv.AppendFloat(nil, v, 'e', -1, 64)
	mantissa, exponent, _ := bytes.Cut(text, []byte("e"))
	b = append(b, mantissa...)
	if !bytes.Contains(mantissa, []byte(".")) {
		b = append(b, ".0"...)
	}
	return append(append(b, 'e'), exponent...)
}
