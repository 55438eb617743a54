package main

import (
	"fmt"
	"strings"
	"time"
)

// expireForms is what --expire understands, for messages and --help.
const expireForms = "'18:00', 'fri 18:00', 'tomorrow 09:00', '2026-12-24 18:00', '+2h' or RFC 3339"

// The forms of a date with a time and of a time, seconds optional.
var (
	dateLayouts  = []string{"2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"}
	clockLayouts = []string{"15:04", "15:04:05"}
)

// parseExpire reads when a hold is to end. A time without a date is the next time
// that the clock shows it; a weekday with a time likewise. Times without a zone
// are in the zone of now. The end must come after now.
func parseExpire(text string, now time.Time) (time.Time, error) {
	expire, err := parseTime(strings.TrimSpace(text), now)
	if err != nil {
		return time.Time{}, err
	}
	if !expire.After(now) {
		return time.Time{}, fmt.Errorf("%q is past: it was %s ago", text, roughly(now.Sub(expire)))
	}
	return expire, nil
}

func parseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if after, ok := strings.CutPrefix(text, "+"); ok {
		d, err := parseDuration(after)
		return now.Add(d), err
	}
	if date, ok := parseLayouts(text, dateLayouts); ok {
		return onDay(date, 0, date, now.Location()), nil
	}

	day, clockText, ok := strings.Cut(strings.ToLower(text), " ")
	if !ok {
		day, clockText = "", day
	}
	clock, ok := parseLayouts(strings.TrimSpace(clockText), clockLayouts)
	if !ok {
		return time.Time{}, fmt.Errorf("%q is not a time to end at; write %s", text, expireForms)
	}
	switch day {
	case "":
		if t := onDay(now, 0, clock, now.Location()); t.After(now) {
			return t, nil
		}
		return onDay(now, 1, clock, now.Location()), nil
	case "today":
		return onDay(now, 0, clock, now.Location()), nil
	case "tomorrow":
		return onDay(now, 1, clock, now.Location()), nil
	}
	for days := range 8 { // 7 days from now is this weekday again
		t := onDay(now, days, clock, now.Location())
		if isWeekday(day, weekdayIn(now, days)) && t.After(now) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q: there is no day %q; write %s", text, day, expireForms)
}

// parseLayouts reads text in the first layout that fits.
func parseLayouts(text string, layouts []string) (time.Time, bool) {
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// onDay returns when the clocks of zone show the time of clock, some days after
// date. Where they show it twice, because they are put back, it is the later time;
// where they skip it, it is as much later as they skip: a hold never ends early.
func onDay(date time.Time, days int, clock time.Time, zone *time.Location) time.Time {
	year, month, day := date.Date()
	hour, minute, second := clock.Clock()
	utc := time.Date(year, month, day+days, hour, minute, second, 0, time.UTC)
	// What the time is by the offset of the day before and of the day after. The
	// two differ only where the clocks are put forward or back in between.
	reading := func(near time.Duration) (t time.Time, shown bool) {
		_, offset := utc.Add(near).In(zone).Zone()
		t = utc.Add(-time.Duration(offset) * time.Second).In(zone)
		return t, t.Hour() == hour && t.Minute() == minute
	}
	before, shownBefore := reading(-24 * time.Hour)
	after, shownAfter := reading(24 * time.Hour)
	if shownBefore != shownAfter {
		if shownBefore {
			return before
		}
		return after
	}
	if before.After(after) {
		return before
	}
	return after
}

// weekdayIn returns the day of the week some days after now.
func weekdayIn(now time.Time, days int) time.Weekday {
	return time.Weekday((int(now.Weekday()) + days) % 7)
}

// isWeekday reports whether text names the day, in full or by three letters or
// more.
func isWeekday(text string, day time.Weekday) bool {
	return len(text) >= 3 && strings.HasPrefix(strings.ToLower(day.String()), text)
}

// isWallTime reports whether text that parseExpire reads is about the clock on the wall,
// so that it means another time in another zone.
func isWallTime(text string) bool {
	text = strings.TrimSpace(text)
	_, err := time.Parse(time.RFC3339, text)
	return err != nil && !strings.HasPrefix(text, "+")
}

// checkZone returns an error if the zone that times on the wall are in is not known: Go,
// like a C library, takes it for UTC then, and a hold would end hours early. tz is what
// TZ is set to, if it is set, and local the name that package time has for the zone;
// relative is how a time can be written that needs no zone.
func checkZone(tz string, set bool, local, relative string) error {
	name := strings.TrimPrefix(tz, ":")
	switch {
	case local != "UTC", set && (name == "" || name == "UTC" || name == "UTC0"):
		return nil
	case set:
		return fmt.Errorf("the time zone TZ=%s is not known; set TZ to one such as Europe/Berlin or UTC, or write the time as %s or in RFC 3339", tz, relative)
	}
	return fmt.Errorf("this machine has no time zone (/etc/localtime); set TZ to one such as Europe/Berlin or UTC, or write the time as %s or in RFC 3339", relative)
}
