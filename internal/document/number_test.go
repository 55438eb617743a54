package document

import (
	"math"
	"strconv"
	"testing"
)

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "7": 7, "-7": -7, "1.1": 1.1, "0.5": 0.5, "-0": math.Copysign(0, -1), "-0.0": math.Copysign(0, -1),
		"9007199254740992": 1 << 53, "1.0e+20": 1e20, "1e+21": 1e21, "1e-7": 1e-7, "1.0e-07": 1e-7, "1.5e+300": 1.5e300,
		"1.7976931348623157e+308": math.MaxFloat64, "5e-324": 5e-324,
	} {
		if got, ok := ParseNumber(text); !ok || math.Float64bits(got) != math.Float64bits(want) {
			t.Errorf("%s: got %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "1.10", "1.0", "1e3", "1E3", "+7", "007", "0x1F", "0o17", "1_000", ".5", "1.", "-", "--1", "1 2", " 1", "1\n", "NaN", "inf", "-Inf", "1e400",
		"9007199254740993", "9007199254740994", "100000000000000000000", "-9007199254740994", "0.1000000000000000055", "2019-12-19", "1:30",
	} {
		if got, ok := ParseNumber(text); ok {
			t.Errorf("%q is the number %v, want text", text, got)
		}
	}
}

// FuzzParseNumber: a number comes back as it was written, in one of the two forms, and
// every number in its YAML form is read as that number.
func FuzzParseNumber(f *testing.F) {
	for _, text := range []string{"1.10", "-0", "1e+21", "1.0e-07", "9007199254740993"} {
		f.Add(text, 1.5)
	}
	f.Fuzz(func(t *testing.T, text string, v float64) {
		if got, ok := ParseNumber(text); ok && string(AppendYAMLNumber(nil, got)) != text && string(appendNumber(nil, got)) != text {
			t.Errorf("%q is read as %v, which would be written otherwise", text, got)
		}
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return
		}
		written := string(AppendYAMLNumber(nil, v))
		if got, ok := ParseNumber(written); !ok || math.Float64bits(got) != math.Float64bits(v) {
			t.Errorf("%s, written %s, is read as %v, %v", strconv.FormatFloat(v, 'g', -1, 64), written, got, ok)
		}
	})
}
