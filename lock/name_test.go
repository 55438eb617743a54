package lock_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pylok/pylok/lock"
)

func TestParseName(t *testing.T) {
	segment := strings.Repeat("s", lock.MaxSegmentBytes)
	tests := []struct {
		text string
		rule string // a word of the rule that is broken; "": none
	}{
		{"a", ""},
		{"lb/server-cluster3w1-2", ""},
		{"A.b_c-d@e+f:g=h/0/_", ""},
		{"_", ""},
		{"a.lock.d", ""},
		{"alock/b.locks", ""},
		{"a.LOCK", ""},
		{"a..b", ""},
		{"a.", ""},
		{segment, ""},
		{strings.Repeat("a/", 15) + "a", ""},
		{segment + "/" + segment + "/" + segment + "/" + segment[:125], ""}, // 512 bytes

		{"", "empty"},
		{"/", "empty segment"},
		{"/a", "empty segment"},
		{"a/", "empty segment"},
		{"a//b", "empty segment"},
		{".", "starts with"},
		{"..", "starts with"},
		{"a/../b", "starts with"},
		{"a/.hidden", "starts with"},
		{".pylok/journal", "starts with"},
		{"-a", "starts with"},
		{"a/@b", "starts with"},
		{"a/=", "starts with"},
		{"a/b.lock", "ends in .lock"},
		{"a.lock/b", "ends in .lock"},
		{"a.lock", "ends in .lock"},
		{"a b", "character ' '"},
		{"a\\b", "character '\\\\'"},
		{"a*", "character '*'"},
		{"a\x00", `character '\x00'`},
		{"a\n", `character '\n'`},
		{"zürich", `"zürich" is not a lock name: segment 1 has the character 'ü'; only`},
		{"a\xff", "byte 0xff"},
		{"~", "character '~'"},
		{"a\u202eb", `"a\u202eb" is not a lock name: segment 1 has the character '\u202e'; only`},
		{segment + "s", "129 bytes"},
		{strings.Repeat("a/", 16) + "a", "17 segments"},
		{segment + "/" + segment + "/" + segment + "/" + segment[:126], "513 bytes"},
		{strings.Repeat("a", 1<<20), "bytes"},
	}
	for _, test := range tests {
		short := test.text[:min(len(test.text), 40)]
		name, err := lock.ParseName(test.text)
		if test.rule == "" {
			if err != nil || name.String() != test.text {
				t.Errorf("ParseName(%q) = %q, %v; want the same and no error", short, name, err)
			}
			continue
		}
		var refusal *lock.Error
		if !errors.As(err, &refusal) || refusal.Reason != lock.ErrInvalidName || refusal.Field != "name" || !name.IsZero() {
			t.Errorf("ParseName(%q) = %q, %v; want %v", short, name, err, lock.ErrInvalidName)
		} else if !strings.Contains(refusal.Message, test.rule) || len(refusal.Message) > 300 {
			t.Errorf("ParseName(%q): the message %q does not say %q in short", short, refusal.Message, test.rule)
		}
	}
}

// FuzzParseName holds every name that is accepted to every rule, written down again
// without the parser's means.
func FuzzParseName(f *testing.F) {
	for _, seed := range []string{"a", "lb/server-cluster3w1-2", "a.lock", "../a", "a//b", ".", "A.b_c-d@e+f:g=h/0/_", "zürich", strings.Repeat("a/", 20)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := lock.ParseName(text)
		if err != nil {
			if !errors.Is(err, lock.ErrInvalidName) {
				t.Errorf("ParseName(%q): %v", text, err)
			}
			return
		}
		if name.String() != text {
			t.Fatalf("ParseName(%q) is %q", text, name)
		}
		if !filepath.IsLocal(text) || filepath.Clean(text) != text || !filepath.IsLocal(text+lock.FileSuffix) {
			t.Errorf("%q is accepted and is no local path", text)
		}
		segments := strings.Split(text, "/")
		if len(text) > 512 || len(segments) > 16 {
			t.Errorf("%q is accepted with %d bytes and %d segments", text, len(text), len(segments))
		}
		for _, s := range segments {
			const first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
			if s == "" || len(s) > 128 || strings.Trim(s, first+".-@+:=") != "" ||
				strings.IndexByte(first, s[0]) < 0 || strings.HasSuffix(s, ".lock") {
				t.Errorf("%q is accepted with the segment %q", text, s)
			}
		}
		if p, err := lock.ParsePattern(text); err != nil || !p.Match(name) {
			t.Errorf("the name %q is no pattern that selects itself: %v", text, err)
		}
	})
}
