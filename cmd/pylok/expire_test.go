package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	location, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return location
}

func TestParseExpire(t *testing.T) {
	const (
		berlin   = "Europe/Berlin"
		lordHowe = "Australia/Lord_Howe" // puts its clocks by half an hour
		samoa    = "Pacific/Apia"        // had no 30 December 2011
		newYork  = "America/New_York"
	)
	for _, test := range []struct {
		text, zone, now, want string // times as RFC 3339; want "": refused
	}{
		// A Wednesday afternoon.
		{"18:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T18:00:00Z"},
		{"15:31", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T15:31:00Z"},
		{"15:30", "UTC", "2026-11-25T15:30:00Z", "2026-11-26T15:30:00Z"},
		{"09:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-26T09:00:00Z"},
		{"9:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-26T09:00:00Z"},
		{"18:00:30", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T18:00:30Z"},
		{" 18:00 ", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T18:00:00Z"},
		{"00:00", "UTC", "2026-12-31T15:30:00Z", "2027-01-01T00:00:00Z"},
		{"fri 18:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-27T18:00:00Z"},
		{"Friday 18:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-27T18:00:00Z"},
		{"thurs  18:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-26T18:00:00Z"},
		{"wed 18:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T18:00:00Z"},
		{"wed 15:30", "UTC", "2026-11-25T15:30:00Z", "2026-12-02T15:30:00Z"},
		{"wed 09:00", "UTC", "2026-11-25T15:30:00Z", "2026-12-02T09:00:00Z"},
		{"tue 09:00", "UTC", "2026-11-25T15:30:00Z", "2026-12-01T09:00:00Z"},
		{"today 18:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T18:00:00Z"},
		{"tomorrow 09:00", "UTC", "2026-11-25T15:30:00Z", "2026-11-26T09:00:00Z"},
		{"TOMORROW 09:00", "UTC", "2028-02-28T15:30:00Z", "2028-02-29T09:00:00Z"},
		{"+2h", "UTC", "2026-11-25T15:30:00Z", "2026-11-25T17:30:00Z"},
		{"+1d12h", "UTC", "2026-11-25T15:30:00Z", "2026-11-27T03:30:00Z"},
		{"2026-12-24 18:00", "UTC", "2026-11-25T15:30:00Z", "2026-12-24T18:00:00Z"},
		{"2026-12-24 18:00:01", "UTC", "2026-11-25T15:30:00Z", "2026-12-24T18:00:01Z"},
		{"2026-12-24T18:00", "UTC", "2026-11-25T15:30:00Z", "2026-12-24T18:00:00Z"},
		{"2026-12-24T18:00:00+05:00", "UTC", "2026-11-25T15:30:00Z", "2026-12-24T13:00:00Z"},
		{"2026-12-24T18:00:00.5Z", "UTC", "2026-11-25T15:30:00Z", "2026-12-24T18:00:00.5Z"},

		// Local time is that of the zone, on that day.
		{"2026-12-24 18:00", berlin, "2026-07-01T10:00:00Z", "2026-12-24T17:00:00Z"},
		{"2027-07-01 18:00", berlin, "2026-12-24T10:00:00Z", "2027-07-01T16:00:00Z"},
		{"00:30", berlin, "2026-11-25T23:15:00Z", "2026-11-25T23:30:00Z"},

		// Clocks go forward on 29 March 2026, 02:00 to 03:00, and back on 25
		// October, 03:00 to 02:00. 18:00 tomorrow is 23 or 25 hours from now.
		{"tomorrow 18:00", berlin, "2026-03-28T17:00:00Z", "2026-03-29T16:00:00Z"},
		{"tomorrow 18:00", berlin, "2026-10-24T16:00:00Z", "2026-10-25T17:00:00Z"},
		{"+1d", berlin, "2026-10-24T16:00:00Z", "2026-10-25T16:00:00Z"},
		{"2026-03-29 01:59", berlin, "2026-03-01T00:00:00Z", "2026-03-29T00:59:00Z"},
		{"2026-03-29 03:00", berlin, "2026-03-01T00:00:00Z", "2026-03-29T01:00:00Z"},
		{"2026-03-29 02:30", berlin, "2026-03-01T00:00:00Z", "2026-03-29T01:30:00Z"}, // skipped: 03:30
		{"2026-10-25 02:30", berlin, "2026-10-01T00:00:00Z", "2026-10-25T01:30:00Z"}, // twice: the later
		{"2026-10-25 01:59", berlin, "2026-10-01T00:00:00Z", "2026-10-24T23:59:00Z"},
		{"2026-10-25 03:00", berlin, "2026-10-01T00:00:00Z", "2026-10-25T02:00:00Z"},
		{"02:15", berlin, "2026-10-25T00:30:00Z", "2026-10-25T01:15:00Z"}, // between the two 02:30
		{"2026-03-08 02:30", newYork, "2026-03-01T00:00:00Z", "2026-03-08T07:30:00Z"},
		{"2026-11-01 01:30", newYork, "2026-10-01T00:00:00Z", "2026-11-01T06:30:00Z"},
		{"2026-04-05 01:45", lordHowe, "2026-04-01T00:00:00Z", "2026-04-04T15:15:00Z"}, // twice, half an hour apart
		{"2011-12-30 12:00", samoa, "2011-12-29T00:00:00Z", "2011-12-30T22:00:00Z"},    // a day that never was

		{"", "UTC", "2026-11-25T15:30:00Z", ""},
		{"18", "UTC", "2026-11-25T15:30:00Z", ""},
		{"25:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"18:60", "UTC", "2026-11-25T15:30:00Z", ""},
		{"friday", "UTC", "2026-11-25T15:30:00Z", ""},
		{"fr 18:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"frisday 18:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"yesterday 18:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"today 15:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"2026-11-25 15:30", "UTC", "2026-11-25T15:30:00Z", ""},
		{"2019-12-20 00:00:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"2026-02-30 12:00", "UTC", "2026-01-25T15:30:00Z", ""},
		{"2026-12-24", "UTC", "2026-11-25T15:30:00Z", ""},
		{"24.12.2026 18:00", "UTC", "2026-11-25T15:30:00Z", ""},
		{"+", "UTC", "2026-11-25T15:30:00Z", ""},
		{"+0s", "UTC", "2026-11-25T15:30:00Z", ""},
		{"+2", "UTC", "2026-11-25T15:30:00Z", ""},
		{"+-2h", "UTC", "2026-11-25T15:30:00Z", ""},
		{"in 2h", "UTC", "2026-11-25T15:30:00Z", ""},
	} {
		t.Run(test.text+" "+test.zone+" "+test.now, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseExpire(test.text, now.In(zone(t, test.zone)))
			if test.want == "" {
				if err == nil {
					t.Errorf("got %v, want an error", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want, err := time.Parse(time.RFC3339, test.want)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Equal(want) {
				t.Errorf("got %v, want %v", got.UTC(), want.UTC())
			}
		})
	}
}

func TestParseExpireSaysWhatIsWrong(t *testing.T) {
	now := time.Date(2026, 11, 25, 15, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"friday":           `"friday" is not a time to end at; write '18:00', 'fri 18:00'`,
		"freitag 18:00":    `there is no day "freitag"`,
		"today 15:00":      `"today 15:00" is past: it was 30m ago`,
		"2026-11-24 12:00": `is past: it was 1d 3h ago`,
		"+2":               `"2" is not a duration; write it like 90s, 30m, 1h30m or 7d`,
	} {
		_, err := parseExpire(text, now)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got the error %v, want one with %q", text, err, want)
		}
	}
}

func TestCheckZone(t *testing.T) {
	for _, test := range []struct {
		tz    string
		set   bool
		local string
		err   string
	}{
		{"", false, "Local", ""},
		{"Europe/Berlin", true, "Europe/Berlin", ""},
		{":Europe/Berlin", true, "Europe/Berlin", ""},
		{"Etc/UTC", true, "Etc/UTC", ""},
		{"UTC", true, "UTC", ""},
		{"UTC0", true, "UTC", ""},
		{"", true, "UTC", ""},
		{":", true, "UTC", ""},
		{"Mars/Base", true, "UTC", "the time zone TZ=Mars/Base is not known"},
		{"CET-1CEST,M3.5.0,M10.5.0/3", true, "UTC", "the time zone TZ=CET-1CEST"},
		{"", false, "UTC", "this machine has no time zone"},
	} {
		err := checkZone(test.tz, test.set, test.local, "+2h")
		if got := fmt.Sprint(err); (err == nil) != (test.err == "") || !strings.HasPrefix(got, test.err) && err != nil {
			t.Errorf("TZ %q (set %v), zone %s: got %v, want %q", test.tz, test.set, test.local, err, test.err)
		}
	}
}
