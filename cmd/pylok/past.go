package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// pastForms is what --since and --until understand, for messages and --help.
const pastForms = "'2h' or '7d' ago, '18:00', 'yesterday 18:00', '2026-11-24', '2026-11-24 18:00' or RFC 3339"

// parsePast reads a time that is over: how long ago it was, or what calendar and clock
// showed. A day alone is its first moment, a time alone the last time that the clock
// showed it. Times without a zone are in the zone of now.
func parsePast(text string, now time.Time) (time.Time, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if ago, err := parseDuration(text); err == nil && text[0] != '+' {
		return now.Add(-ago), nil
	}
	if t, err := time.Parse(time.RFC3339, strings.ToUpper(text)); err == nil {
		return t, nil
	}
	tz, set := os.LookupEnv("TZ")
	if err := checkZone(tz, set, time.Local.String(), "2h"); err != nil {
		return time.Time{}, err
	}
	if date, ok := parseLayouts(strings.ToUpper(text), append(dateLayouts, "2006-01-02")); ok {
		return onDay(date, 0, date, now.Location()), nil
	}
	day, clockText, hasClock := strings.Cut(text, " ")
	if day != "today" && day != "yesterday" {
		day, clockText, hasClock = "", text, true
	}
	var clock time.Time // midnight
	if hasClock {
		var ok bool
		if clock, ok = parseLayouts(strings.TrimSpace(clockText), clockLayouts); !ok {
			return time.Time{}, fmt.Errorf("%q is not a time; write %s", text, pastForms)
		}
	}
	t := onDay(now, 0, clock, now.Location())
	if day == "yesterday" || day == "" && t.After(now) {
		t = onDay(now, -1, clock, now.Location())
	}
	return t, nil
}
