package main

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		text string
		want time.Duration // negative: refused
	}{
		{"30m", 30 * time.Minute},
		{"90s", 90 * time.Second},
		{"1h30m", 90 * time.Minute},
		{"1.5h", 90 * time.Minute},
		{"250ms", 250 * time.Millisecond},
		{"7d", 7 * day},
		{"1d12h", 36 * time.Hour},
		{"366d", 366 * day},
		{"0", 0},
		{"0s", 0},
		{"", -1},
		{"30", -1},
		{"-5m", -1},
		{"-1d", -1},
		{"1d-5m", -1},
		{"1.5d", -1},
		{"12h1d", -1},
		{"d", -1},
		{"5 m", -1},
		{"99999999d", -1},
		{"65535d2540000h", -1},
		{"9999999h", -1},
	} {
		got, err := parseDuration(test.text)
		switch {
		case test.want < 0 && err == nil:
			t.Errorf("%q: got %v, want an error", test.text, got)
		case test.want >= 0 && err != nil:
			t.Errorf("%q: got the error %v", test.text, err)
		case test.want >= 0 && got != test.want:
			t.Errorf("%q: got %v, want %v", test.text, got, test.want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                      "0s",
		30 * time.Second:       "30s",
		30 * time.Minute:       "30m",
		2 * time.Hour:          "2h",
		90 * time.Minute:       "1h30m",
		90*time.Minute + 1e9:   "1h30m1s",
		2*time.Hour + 1e9:      "2h0m1s",
		10 * time.Minute:       "10m",
		10 * time.Hour:         "10h",
		250 * time.Millisecond: "250ms",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                               "0s",
		1900 * time.Millisecond:         "1s",
		-59 * time.Second:               "59s",
		61 * time.Second:                "1m",
		59*time.Minute + 59*time.Second: "59m",
		time.Hour:                       "1h",
		65 * time.Minute:                "1h 5m",
		23*time.Hour + 59*time.Minute:   "23h 59m",
		24 * time.Hour:                  "1d",
		51 * time.Hour:                  "2d 3h",
		2410*time.Hour + time.Minute:    "100d 10h",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestAhead(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		want string
	}{
		{30*time.Minute - time.Millisecond, "30m"},
		{28*time.Minute + 20*time.Second, "28m"},
		{30*time.Second - time.Millisecond, "30s"},
		{time.Minute - time.Millisecond, "1m"},
		{time.Hour - time.Millisecond, "1h"},
		{2*time.Hour - time.Second, "2h"},
		{24*time.Hour - time.Second, "1d"},
		{7*24*time.Hour - time.Second, "7d"},
		{26 * time.Hour, "1d 2h"},
		{time.Millisecond, "0s"},
	} {
		if got := ahead(test.d); got != test.want {
			t.Errorf("ahead(%v) is %q, want %q", test.d, got, test.want)
		}
	}
}
