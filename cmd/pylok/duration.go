package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// duration is a flag's value: what time.ParseDuration reads, with days before it
// if need be, such as 90s, 1h30m, 7d or 1d12h.
type duration time.Duration

// Set implements pflag.Value.
func (d *duration) Set(text string) error {
	parsed, err := parseDuration(text)
	if err != nil {
		return err
	}
	*d = duration(parsed)
	return nil
}

// String implements pflag.Value. Zero is empty, so that --help shows no default.
func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return formatDuration(time.Duration(*d))
}

// Type implements pflag.Value; it is the word that --help shows.
func (d *duration) Type() string { return "duration" }

// parseDuration reads a duration that is not negative.
func parseDuration(text string) (time.Duration, error) {
	const example = "write it like 90s, 30m, 1h30m or 7d"
	if text == "" {
		return 0, fmt.Errorf("it is empty; %s", example)
	}
	var total time.Duration
	rest := text
	if number, after, ok := strings.Cut(text, "d"); ok {
		days, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration; %s", text, example)
		}
		total, rest = time.Duration(days)*24*time.Hour, after
	}
	if rest != "" {
		parsed, err := time.ParseDuration(rest)
		if err != nil || parsed > math.MaxInt64-total {
			return 0, fmt.Errorf("%q is not a duration; %s", text, example)
		}
		if parsed < 0 {
			return 0, fmt.Errorf("%q is less than nothing; %s", text, example)
		}
		total += parsed
	}
	return total, nil
}

// formatDuration writes a duration as people would, without units that are zero:
// 30m, not 30m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// ahead is roughly for what is to come, to the nearest: what was set to end in 30m just
// now ends in 30m, and not in 29m.
func ahead(d time.Duration) string {
	switch {
	case d < time.Minute:
		return roughly(d.Round(time.Second))
	case d < 24*time.Hour:
		return roughly(d.Round(time.Minute))
	}
	return roughly(d.Round(time.Hour))
}

// roughly writes how long something took, in at most two units.
func roughly(d time.Duration) string {
	d = d.Abs()
	day := 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		return twoUnits(d, time.Hour, "h", time.Minute, "m")
	}
	return twoUnits(d, day, "d", time.Hour, "h")
}

func twoUnits(d, big time.Duration, bigUnit string, small time.Duration, smallUnit string) string {
	text := fmt.Sprintf("%d%s", d/big, bigUnit)
	if rest := d % big / small; rest > 0 {
		text += fmt.Sprintf(" %d%s", rest, smallUnit)
	}
	return text
}
