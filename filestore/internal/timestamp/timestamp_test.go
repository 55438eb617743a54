package timestamp_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/timestamp"
)

func TestAppend(t *testing.T) {
	const layout = "2006-01-02T15:04:05.000Z07:00"
	times := []time.Time{
		{},
		time.Unix(0, 0),
		time.Unix(-1, 999_999_999),
		time.Date(2026, 11, 22, 20, 3, 11, 482_999_999, time.FixedZone("CET", 3600)),
		time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
	}
	for range 1000 {
		times = append(times, time.Unix(rand.Int64N(1<<37), rand.Int64N(1e9)))
	}
	for _, at := range times {
		if got, want := string(timestamp.Append([]byte("at "), at)), "at "+at.UTC().Format(layout); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
