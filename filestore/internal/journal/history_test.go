package journal

import (
	"testing"

	"github.com/pylok/pylok/lock"
)

// allHistory returns all pages of a history.
func allHistory(t *testing.T, j *Journal, b *Breaks, q lock.HistoryQuery) (events []lock.Event) {
	t.Helper()
	for from := lock.Revision(0); ; {
		page, err := j.History(t.Context(), b, Query{HistoryQuery: q, From: from, Until: j.Last(), Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, page.Events...)
		if from = page.Next; from == 0 {
			return events
		}
	}
}
