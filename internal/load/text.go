package load

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseSizes reads numbers from 1 to most with commas between.
func ParseSizes(text string, most int) (sizes []int, err error) {
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > most {
			return nil, fmt.Errorf("%q is not a number from 1 to %d; write them with commas between, such as 1,16", field, most)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// FormatSize writes how many of a unit there are.
func FormatSize(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return FormatCount(float64(n)) + " " + unit
}

// FormatCount writes a number without a fraction, with commas.
func FormatCount(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// FormatDuration writes a duration with three digits.
func FormatDuration(d time.Duration) string {
	for _, unit := range []struct {
		name   string
		length time.Duration
	}{{"µs", time.Microsecond}, {"ms", time.Millisecond}} {
		text := fmt.Sprintf("%.3g", float64(d)/float64(unit.length))
		if !strings.Contains(text, "e+") { // it is below 1,000, and not rounded to that
			return text + " " + unit.name
		}
	}
	return fmt.Sprintf("%.3g s", d.Seconds())
}
