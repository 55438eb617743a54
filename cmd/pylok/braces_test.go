package main

import (
	"slices"
	"strings"
	"testing"
)

func TestExpandBraces(t *testing.T) {
	tests := []struct {
		text string
		want string // the words, blank-separated
	}{
		{"lb/a", "lb/a"},
		{"patch/slot-{1..3}", "patch/slot-1 patch/slot-2 patch/slot-3"},
		{"rack7/{a..d}", "rack7/a rack7/b rack7/c rack7/d"},
		{"{c..a}", "c b a"},
		{"n{3..1}", "n3 n2 n1"},
		{"n{08..11}", "n08 n09 n10 n11"},
		{"n{8..011}", "n008 n009 n010 n011"},
		{"{db,web}/{1..2}", "db/1 db/2 web/1 web/2"},
		{"x{a,b{1..2},c}y", "xay xb1y xb2y xcy"},
		{"{a,}b", "ab b"},
		{"a,b", "a,b"},
		{"{1..1}", "1"},
	}
	for _, test := range tests {
		got, err := expandBraces(test.text)
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %q (%v), want %q", test.text, got, err, test.want)
		}
	}
	for _, text := range []string{"{", "}", "a}", "{a", "{a,b", "{}", "{a}", "{1..}", "{..3}", "{a..3}", "{1..65}", "{1..9}{1..9}", "{-1..3}", "{1..99999999999}", "{1..3..2}", "{{a,b}", "{a{1..2}}", "{{a,b}}", "{{1..2}}"} {
		if got, err := expandBraces(text); err == nil {
			t.Errorf("%s: got %q, want an error", text, got)
		}
	}
}

func FuzzExpandBraces(f *testing.F) {
	for _, text := range []string{"patch/slot-{1..3}", "{a,b{1..2}}", "{c..a}", "{08..11}", "a,b}"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, err := expandBraces(text)
		switch {
		case err != nil:
		case len(words) == 0 || len(words) > maxExpanded:
			t.Errorf("%q makes %d words", text, len(words))
		case !strings.ContainsAny(text, "{}") && !slices.Equal(words, []string{text}):
			t.Errorf("%q without braces makes %q", text, words)
		case strings.ContainsAny(strings.Join(words, ""), "{}"):
			t.Errorf("%q makes %q, which have braces", text, words)
		}
	})
}
