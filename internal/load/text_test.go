package load

import (
	"slices"
	"testing"
	"time"
)

func TestParseSizes(t *testing.T) {
	if got, err := ParseSizes("1,16,4096", 4096); err != nil || !slices.Equal(got, []int{1, 16, 4096}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "0", "-1", "4097", "1,", "many", "1.5"} {
		if got, err := ParseSizes(text, 4096); err == nil {
			t.Errorf("%q is read as %v, want an error", text, got)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{FormatCount(0), "0"},
		{FormatCount(999), "999"},
		{FormatCount(1234567), "1,234,567"},
		{FormatDuration(1500 * time.Nanosecond), "1.5 µs"},
		{FormatDuration(12300 * time.Microsecond), "12.3 ms"},
		{FormatDuration(999499 * time.Nanosecond), "999 µs"},
		{FormatDuration(999500 * time.Nanosecond), "1 ms"},
		{FormatDuration(999999 * time.Microsecond), "1 s"},
		{FormatDuration(2 * time.Second), "2 s"},
		{FormatSize(1, "caller"), "1 caller"},
		{FormatSize(1000, "waiter"), "1,000 waiters"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
