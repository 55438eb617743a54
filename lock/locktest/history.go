package locktest

import (
	"fmt"
	"slices"
	"time"

	"github.com/pylok/pylok/lock"
)

// testHistoryPages asks for the same past in many ways, in pages of many sizes and both
// orders, and holds the pages to HistoryQuery.Match.
func testHistoryPages(s tested) {
	if page := s.page(lock.HistoryQuery{}, 0, 10); len(page.Events) > 0 || page.Next != 0 {
		s.t.Errorf("the history of nothing is %+v", page)
	}
	names := []string{"a", "a/b", "a/b/c", "ab", "lb/web-1", "lb/web-2", "lb/web-10", "z"}
	for i := range 60 {
		name := names[i*i%len(names)]
		by := func(c *lock.Change) { c.Actor = []string{"alice", "bob", ""}[i%3] }
		if !s.get(name).Held() {
			s.lock(name, by)
			continue
		}
		s.unlock(name, by, func(c *lock.Change) {
			if i%4 == 0 {
				c.Cause = lock.Forced
			}
		})
	}
	all := s.events(s.start, 60)
	queries := []lock.HistoryQuery{
		{},
		{After: s.start + 20},
		{After: s.start + 60},
		{After: s.start + 1000},
		{Actor: "bob"},
		{Actor: "carol"},
		{Cause: lock.Forced},
		{Cause: lock.Expired},
		{Pattern: lock.MustParsePattern("lb/web-1"), Cause: lock.Request, Actor: "alice", After: s.start + 5},
	}
	for _, pattern := range []string{"a", "a/b", "a/**", "a*", "**/b", "lb/web-1", "lb/web-*", "lb/*", "none", "none/*", "z"} {
		queries = append(queries, lock.HistoryQuery{Pattern: lock.MustParsePattern(pattern)})
	}
	for _, q := range queries {
		for _, q.NewestFirst = range []bool{false, true} {
			var want []lock.Event
			for _, e := range all {
				if q.Match(&e) {
					want = append(want, e)
				}
			}
			if q.NewestFirst {
				slices.Reverse(want)
			}
			for _, limit := range []int{1, 2, 7, len(want) + 1, 1000} {
				if got := s.pages(q, limit); !slices.Equal(got, want) {
					s.t.Errorf("%s in pages of %d:\n got %v\nwant %v", describeQuery(q), limit, revisions(got), revisions(want))
				}
			}
		}
	}

	// What is new does not come between the pages that go back.
	q := lock.HistoryQuery{NewestFirst: true}
	first := s.page(q, 0, 2)
	s.lock("new")
	if second := s.page(q, first.Next, 1); len(second.Events) != 1 || second.Events[0] != all[57] {
		s.t.Errorf("the second page has %v, want %d", revisions(second.Events), all[57].Revision)
	}
}

// testHistoryTimes asks for the past by the times of events, of which several may be the
// same.
func testHistoryTimes(s tested) {
	for range 15 {
		s.lock("a")
		s.unlock("a")
	}
	all := s.events(s.start, 30)
	times := []time.Time{{}, all[0].Time.Add(-time.Hour), all[29].Time.Add(time.Hour)}
	for _, i := range []int{0, 10, 29} {
		times = append(times, all[i].Time, all[i].Time.Add(time.Microsecond))
	}
	for _, from := range times {
		for _, to := range times {
			q := lock.HistoryQuery{AfterTime: from, BeforeTime: to}
			var want []lock.Event
			for _, e := range all {
				if q.Match(&e) {
					want = append(want, e)
				}
			}
			if got := s.pages(q, 7); !slices.Equal(got, want) {
				s.t.Errorf("%s: got %v, want %v", describeQuery(q), revisions(got), revisions(want))
			}
			q.NewestFirst = true
			slices.Reverse(want)
			if got := s.pages(q, 7); !slices.Equal(got, want) {
				s.t.Errorf("%s: got %v, want %v", describeQuery(q), revisions(got), revisions(want))
			}
		}
	}
}

// page asks for one page.
func (s tested) page(q lock.HistoryQuery, from lock.Revision, limit int) lock.HistoryPage {
	s.t.Helper()
	page, err := s.History(s.t.Context(), q, from, limit)
	if err != nil {
		s.t.Fatalf("History(%s, %d, %d): %v", describeQuery(q), from, limit, err)
	}
	if len(page.Events) > limit {
		s.t.Fatalf("History(%s, %d, %d) has %d events", describeQuery(q), from, limit, len(page.Events))
	}
	return page
}

// pages asks for all pages, and returns their events.
func (s tested) pages(q lock.HistoryQuery, limit int) (events []lock.Event) {
	s.t.Helper()
	for from := lock.Revision(0); ; {
		page := s.page(q, from, limit)
		events = append(events, page.Events...)
		if page.Next == 0 {
			return events
		}
		goesOn := page.Next > from
		if q.NewestFirst {
			goesOn = from == 0 || page.Next < from
		}
		if !goesOn {
			s.t.Fatalf("History(%s, %d, %d): next is %d", describeQuery(q), from, limit, page.Next)
		}
		from = page.Next
	}
}

func describeQuery(q lock.HistoryQuery) string {
	return fmt.Sprintf("pattern %q, after %d, from %v to %v, actor %q, cause %v, newest first %v", q.Pattern, q.After, q.AfterTime, q.BeforeTime, q.Actor, q.Cause, q.NewestFirst)
}

func revisions(events []lock.Event) (revisions []lock.Revision) {
	for _, e := range events {
		revisions = append(revisions, e.Revision)
	}
	return revisions
}
