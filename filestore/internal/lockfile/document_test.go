package lockfile_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

// choices is where a generated document takes its choices from: a random source,
// or the bytes of a fuzzer.
type choices interface {
	// below returns a number from 0 to n-1.
	below(n int) int
}

type randomChoices struct{ *rand.Rand }

func (r randomChoices) below(n int) int { return r.IntN(n) }

// byteChoices reads choices from bytes; when they are used up it chooses 0.
type byteChoices struct{ bytes []byte }

func (b *byteChoices) below(n int) int {
	v := 0
	for range (n-1)>>8 + 1 {
		if len(b.bytes) == 0 {
			return 0
		}
		v = v<<8 | int(b.bytes[0])
		b.bytes = b.bytes[1:]
		if v >= n {
			break
		}
	}
	return v % n
}

// nastyTexts are strings that some YAML reader takes for something else when they
// stand without quotes, or that a careless writer breaks.
var nastyTexts = []string{
	"", " ", "  ", "a", "App1", "two words", " leading", "trailing ", "-", "--", "---", "--- a", "...", "- a", "-a", "?", "? a", "?a",
	":", ": a", ":a", "a:", "a: b", "a :b", "a:b", "::", "#", "# a", "a #b", "a#b", "!", "!a", "!!str a", "&", "&a", "*", "*a", "%", "%YAML 1.2", "@", "@a", "`", "`a",
	"[", "]", "[]", "[a]", "{", "}", "{}", "{a: b}", "a, b", ",", ",a", "|", "|-", "|\n a", ">", ">-", "> a", "'", "''", "'a'", `"`, `""`, `"a"`, `a"b`, "a'b", `\`, `\n`, `a\`, `C:\temp`,
	"~", "null", "Null", "NULL", "nULL", "none", "None", "true", "True", "TRUE", "tRue", "false", "False", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "off", "OFF", "y", "Y", "n", "N",
	"<<", "=", "<", "0", "-0", "+0", "00", "007", "08", "0o7", "0o17", "0x1F", "0XFF", "0b101", "-0x1", "1_000", "_1", "1_", "+1", "-1", "1.", ".1", "1.0", "-.5", "+.5", "1e5", "1E5", "1e+5", "1e-5", "1e-7", "-1e-9", "1e+21", "5e-324", "1.5e3", "1.e+3", "e5", "1,000",
	"12345678901234567890", "9007199254740993", "190:20:30", "-190:20:30", "1:30", "12:30:45", "190:20:30.15", "0:0", "60:00",
	".inf", "-.inf", "+.inf", ".Inf", ".INF", ".nan", ".NaN", "inf", "Inf", "nan", "NaN", "infinity", "Infinity", "-inf", ".", "..", "._", "1__2",
	"2019-12-20", "2019-12-20 00:00:00", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.10 -5", "2001-12-15 2:59:43.10", "2002-1-1", "2026-11-22T19:03:11.482Z", "20191220", "30s", "1h30m", "1d", "12ab", "1f", "0xz", "5e", "0b2",
	"\n", "\n\n", "a\n", "a\nb", "a\nb\n", "a\n\nb", "a\n\n", "\na", "\n a", " a\nb", "a\n b\n", "a \nb", "a\t\nb", "a\n\tb", "a\n  \nb", "a\n# b", "# a\nb", "a\n---\nb", "a\n...\n", "- a\n- b", "a: b\nc: d\n", "%a\nb", "a\n%b", "a\r\nb", "\r", "a\rb", "\r\n", "line one\nline two\n    indented\nlast", "a\nb: |\n  c\n",
	"\t", "\ta", "a\t", "a\tb", "a\t#b", "a:\tb", "\x00", "\x01\x02", "\x07\x08\x0b\x0c", "\x1b[31m", "\x7f", "\u0080", "\u0085", "a\u0085b", "a\u0085\nb", "\u00a0", "a\u00a0b", "\u00ad", "é", "naïve café", "日本語", "日本\n語", "\u2028", "a\u2028b", "a\u2029\nb", "\u200b", "\u202e", "\u200d", "\ufeff", "\ufeffa", "a\ufeffb", "a\ufeff\nb", "\ufffd", "\ufffe", "\uffff", "\ue000", "\ud7ff", "😀", "😀\n😀", "\U0001fffe", "\U0010ffff", "\U000e0001", "e\u0301", "\u0301",
	"lock_token", "lock_holder", "lock_ttl", "lock_file_status", "data", "msg", "expire", "billyjenkins@example.com", "/tmp/locks/a b.lock", "http://example.com/?a=b&c=d#e", "a=b", "key: [value, {a: b}]", "(a)", "a;b", "$HOME", "50%", "100% sure", "a?b", "a!", "a*b", "a|b", "a>b", "don't", "A: B # C",
	"!!binary aGk=", "!!python/object/apply:os.system ['true']", "*alias", "&anchor a", "? key\n: value",
}

// longTexts are at and around the lengths where readers have limits.
var longTexts = func() (texts []string) {
	for _, n := range []int{127, 128, 129, 999, 1000, 1001, 1023, 1024, 1025, 1100} {
		texts = append(texts, strings.Repeat("k", n), strings.Repeat("k ", n/2)+"k", strings.Repeat("é", n), strings.Repeat("7", n))
	}
	return append(texts, strings.Repeat("word ", 60)+"end", strings.Repeat("a: b ", 300), strings.Repeat("x\n", 300), strings.Repeat("日本 ", 400))
}()

var nastyNumbers = []float64{
	0, 1, -1, 42, 0.1, -0.5, 1.5, 100, 1e3, 1e5, 1e6, 1e15, 1e16, 1e17, 1e20, 1e21, 1e22, 1e100, -1e100, 1.5e300, 1e-1, 1e-3, 1e-4, 1.5e-4, 1e-5, 1e-6, 1e-7, 1e-10, 123456.789, 1234567890.125, 3.14159265358979,
	1 << 52, 1<<53 - 1, 1 << 53, 1<<53 + 2, -(1 << 53), -(1<<53 + 2), 1 << 62, 1 << 63, 1 << 64, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 0.1 + 0.2, 4503599627370497.5, 9007199254740991.0 / 2,
}

// generateText makes a string: a nasty one, pieces of some, or any characters.
func generateText(c choices) string {
	switch c.below(16) {
	case 0, 1, 2:
		return nastyTexts[c.below(len(nastyTexts))] + nastyTexts[c.below(len(nastyTexts))]
	case 3:
		return nastyTexts[c.below(len(nastyTexts))] + "\n" + nastyTexts[c.below(len(nastyTexts))] + "\n"
	case 4, 5:
		var b strings.Builder
		for range c.below(12) {
			b.WriteByte(byte(c.below(0x80)))
		}
		return b.String()
	case 6:
		var b strings.Builder
		for range c.below(6) {
			b.WriteRune(rune(c.below(0x11)<<16 | c.below(0x10000))) // a surrogate becomes U+FFFD
		}
		return b.String()
	case 7:
		const few = "0123456789-+.:_eEx \n#'\"tTzZ"
		var b strings.Builder
		for range c.below(14) {
			b.WriteByte(few[c.below(len(few))])
		}
		return b.String()
	case 8:
		if c.below(16) == 0 {
			return longTexts[c.below(len(longTexts))]
		}
	}
	return nastyTexts[c.below(len(nastyTexts))]
}

func generateNumber(c choices) float64 {
	switch c.below(4) {
	case 0:
		v := math.Float64frombits(uint64(c.below(1<<16))<<48 | uint64(c.below(1<<16))<<32 | uint64(c.below(1<<16))<<16 | uint64(c.below(1<<16)))
		if !math.IsInf(v, 0) && !math.IsNaN(v) {
			return v
		}
	case 1:
		return float64(c.below(2000)-1000) / float64(int(1)<<c.below(8))
	}
	return nastyNumbers[c.below(len(nastyNumbers))]
}

func generateValue(c choices, depth int) any {
	kind := c.below(12)
	if depth <= 0 && kind < 4 {
		kind += 4
	}
	switch kind {
	case 0, 1:
		return generateMapping(c, depth-1)
	case 2, 3:
		list := make([]any, c.below(4))
		for i := range list {
			list[i] = generateValue(c, depth-1)
		}
		return list
	case 4:
		return nil
	case 5:
		return c.below(2) == 0
	case 6, 7:
		return generateNumber(c)
	}
	return generateText(c)
}

func generateMapping(c choices, depth int) map[string]any {
	mapping := make(map[string]any)
	for range c.below(5) {
		mapping[generateText(c)] = generateValue(c, depth)
	}
	return mapping
}

// generateData makes a document of a few levels, one in sixteen of up to the most
// that are allowed.
func generateData(t testing.TB, c choices) lock.Data {
	t.Helper()
	document := generateMapping(c, 1+c.below(3))
	if c.below(16) == 0 {
		levels := c.below(lock.MaxDataDepth - 4)
		var inner any = map[string]any{"inner": "most"}
		for range levels {
			if c.below(2) == 0 {
				inner = []any{inner}
			} else {
				inner = map[string]any{generateText(c): inner}
			}
		}
		document["deep"] = inner
	}
	data, err := lock.NewData(document)
	if err != nil {
		t.Fatalf("the generated document is not allowed: %v", err)
	}
	return data
}
