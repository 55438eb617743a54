package main

import (
	"strings"
	"testing"
	"time"
)

func TestParsePast(t *testing.T) {
	const now = "2026-11-25T14:30:00+01:00" // a Wednesday
	for _, test := range []struct{ text, want string }{
		{"2h", "2026-11-25T12:30:00+01:00"},
		{"0s", now},
		{"7d", "2026-11-18T14:30:00+01:00"},
		{" 1d12h ", "2026-11-24T02:30:00+01:00"},
		{"2026-11-24", "2026-11-24T00:00:00+01:00"},
		{"2026-07-01", "2026-07-01T00:00:00+02:00"},
		{"2026-11-24 18:00", "2026-11-24T18:00:00+01:00"},
		{"2026-11-24t18:00:05", "2026-11-24T18:00:05+01:00"},
		{"2026-11-24T18:00:05Z", "2026-11-24T18:00:05Z"},
		{"2026-11-24t18:00:05.25z", "2026-11-24T18:00:05.25Z"},
		{"18:00", "2026-11-24T18:00:00+01:00"},
		{"14:30", now},
		{"09:15:30", "2026-11-25T09:15:30+01:00"},
		{"today", "2026-11-25T00:00:00+01:00"},
		{"Today 18:00", "2026-11-25T18:00:00+01:00"},
		{"yesterday", "2026-11-24T00:00:00+01:00"},
		{"yesterday 18:00", "2026-11-24T18:00:00+01:00"},
		{"tomorrow", ""},
		{"someday", ""},
		{"", ""},
		{"-2h", ""},
		{"+2h", ""},
		{"2026-13-24", ""},
		{"yesterday at noon", ""},
		{"25:00", ""},
	} {
		at, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsePast(test.text, at.In(zone(t, "Europe/Berlin")))
		if test.want == "" {
			if err == nil || !strings.Contains(err.Error(), "2026-11-24") {
				t.Errorf("%q: got %v, %v; want an error with examples", test.text, got, err)
			}
			continue
		}
		want, parseErr := time.Parse(time.RFC3339, test.want)
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v; want %v", test.text, got, err, want)
		}
	}
}
