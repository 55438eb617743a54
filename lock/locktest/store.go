package locktest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pylok/pylok/lock"
)

// Test holds a store to lock.Store. open returns a fresh, empty store, which the
// suite closes.
func Test(t *testing.T, open func(t *testing.T) lock.Store) {
	run(t, open, "Get", testGet)
	run(t, open, "Fields", testFields)
	run(t, open, "Data", testData)
	run(t, open, "DataTooLarge", testDataTooLarge)
	run(t, open, "List", testList)
	run(t, open, "ListEndsWithItsContext", testListEndsWithItsContext)
	run(t, open, "ListIsOfOneRevision", testListIsOfOneRevision)
	run(t, open, "ListAndEventsMeet", testListAndEventsMeet)
	run(t, open, "Conditions", testConditions)
	run(t, open, "ConflictIsVisible", testConflictIsVisible)
	run(t, open, "AllOrNothing", testAllOrNothing)
	run(t, open, "CheckCommit", testCheckCommit)
	run(t, open, "HandOver", testHandOver)
	run(t, open, "HandOverOfMany", testHandOverOfMany)
	run(t, open, "SetIDs", testSetIDs)
	run(t, open, "SetsOfAll", testSetsOfAll)
	run(t, open, "Previous", testPrevious)
	run(t, open, "BecomesStale", testBecomesStale)
	run(t, open, "Slots", testSlots)
	run(t, open, "Guards", testGuards)
	run(t, open, "DeepTrees", testDeepTrees)
	run(t, open, "GuardsOfMany", testGuardsOfMany)
	run(t, open, "GuardsExclude", testGuardsExclude)
	run(t, open, "CommitAfterItsContext", testCommitAfterItsContext)
	run(t, open, "Tokens", testTokens)
	run(t, open, "Extended", testExtended)
	run(t, open, "Unlocked", testUnlocked)
	run(t, open, "Replace", testReplace)
	run(t, open, "OneWinner", testOneWinner)
	run(t, open, "EventsForAll", testEventsForAll)
	run(t, open, "EventsWait", testEventsWait)
	run(t, open, "EventsOfPattern", testEventsOfPattern)
	run(t, open, "EventsAreVisible", testEventsAreVisible)
	run(t, open, "EventsYetToCome", testEventsYetToCome)
	run(t, open, "History", testHistoryPages)
	run(t, open, "HistoryTimes", testHistoryTimes)
	run(t, open, "Close", testClose)
}

func testGet(s tested) {
	name := lock.MustParseName("lb/web-1")
	_, err := s.Get(s.t.Context(), name)
	wantError(s.t, "Get of a free lock", err, lock.ErrNotLocked)

	event := s.commit(s.change(lock.Locked, "lb/web-1", withHolder("alice"), withData(`{"msg":"one"}`)))[0]
	wantLock(s.t, "Get of a held lock", s.get("lb/web-1"), event.Lock)

	event = s.commit(s.change(lock.Updated, "lb/web-1", withData(`{"msg":"two"}`)))[0]
	wantLock(s.t, "Get of an updated lock", s.get("lb/web-1"), event.Lock)

	s.unlock("lb/web-1")
	_, err = s.Get(s.t.Context(), name)
	wantError(s.t, "Get of a lock that became free", err, lock.ErrNotLocked)

	_, err = s.Get(s.t.Context(), lock.MustParseName("lb"))
	wantError(s.t, "Get of what is a prefix of a name", err, lock.ErrNotLocked)
}

// testFields commits every field of a Change and finds it again in the event that
// Commit returns, in Events and in Get.
func testFields(s tested) {
	past := time.Date(2019, 12, 19, 9, 26, 3, 482e6, time.UTC)
	future := time.Date(2262, 12, 31, 23, 59, 59, 999e6, time.UTC)
	tests := []struct {
		name   string
		change lock.Change
	}{
		{"nothing", lock.Change{Cause: lock.Request}},
		{"texts", lock.Change{
			Cause: lock.Forced, Actor: "ünïcode 'quoted' \"actor\"", Reason: "line one\nline two: # no comment\n",
			Lock: lock.Lock{Holder: "yes", RequestID: "0x1F"},
		}},
		{"caller", lock.Change{
			Cause: lock.Request, Actor: "unix:alice",
			Lock: lock.Lock{Caller: "unix:alice"},
		}},
		{"texts of a caller", lock.Change{
			Cause: lock.Request, Actor: "ünïcode 'quoted' \"caller\"\nlock_token: 9",
			Lock: lock.Lock{Holder: "alice", Caller: "ünïcode 'quoted' \"caller\"\nlock_token: 9", RequestID: "~"},
		}},
		{"ttl", lock.Change{Cause: lock.Request, Lock: lock.Lock{TTL: 1500 * time.Millisecond}}},
		{"long ttl", lock.Change{Cause: lock.Request, Lock: lock.Lock{TTL: 366 * 24 * time.Hour}}},
		{"odd ttl", lock.Change{Cause: lock.Request, Lock: lock.Lock{TTL: 123456789 * time.Nanosecond}}},
		{"expire time", lock.Change{Cause: lock.File, Lock: lock.Lock{ExpireTime: future}}},
		{"acquire time", lock.Change{Cause: lock.File, Lock: lock.Lock{AcquireTime: past}}},
		{"tree", lock.Change{Cause: lock.Request, Lock: lock.Lock{Tree: true, ExpireTime: future}}},
		{"kept", lock.Change{Cause: lock.Request, Lock: lock.Lock{OnExpiry: lock.Keep, TTL: time.Minute}}},
		{"stale", lock.Change{Cause: lock.Expired, Lock: lock.Lock{OnExpiry: lock.Keep, TTL: time.Minute, AcquireTime: past, StaleTime: past.Add(time.Minute)}}},
		{"of a set", lock.Change{Cause: lock.Request, Lock: lock.Lock{Set: lock.SetRef{ID: 1, Size: 64}}}},
		{"stale, of a set", lock.Change{Cause: lock.Expired, Lock: lock.Lock{OnExpiry: lock.Keep, StaleTime: future, Set: lock.SetRef{ID: 3, Size: 2}}}},
		{"holder like a date", lock.Change{Cause: lock.Expired, Lock: lock.Lock{Holder: "2019-12-19 09:26:03", RequestID: "~"}}},
	}
	for i, test := range tests {
		s.t.Run(test.name, func(t *testing.T) {
			s.t = t
			before := s.revision()
			change := test.change
			change.Type = lock.Locked
			change.Lock.Name = lock.MustParseName(fmt.Sprintf("fields/%d", i))
			event := s.commit(change)[0]

			want := change.Lock
			want.Revision, want.Token = event.Revision, lock.Token(event.Revision)
			if want.AcquireTime.IsZero() {
				want.AcquireTime = event.Time
			}
			wantKeptTime(t, "the event's time", event.Time)
			wantKeptTime(t, "the acquire time", event.Lock.AcquireTime)
			if event.Type != lock.Locked || event.Cause != change.Cause || event.Actor != change.Actor || event.Reason != change.Reason {
				t.Errorf("the event of %+v is %+v", change, event)
			}
			wantLock(t, "the lock in the event", event.Lock, want)
			if got := s.events(before, 1)[0]; !sameEvent(got, event) {
				t.Errorf("Events:\n got %+v\nwant %+v", got, event)
			}
			got := s.get(change.Lock.Name.String())
			wantKeptTime(t, "Get: the acquire time", got.AcquireTime)
			wantLock(t, "Get", got, want)
			if list := s.list(change.Lock.Name.String(), ""); len(list) != 1 || !sameLock(list[0], want) {
				t.Errorf("List: got %+v, want just %+v", list, want)
			}
		})
	}
}

// nastyValues are values that some reader or writer takes for something else.
var nastyValues = map[string]string{
	"empty document":          `{}`,
	"YAML 1.1 booleans":       `{"a":"yes","b":"No","c":"on","d":"y","e":"TRUE","f":true,"g":false,"h":"off"}`,
	"nulls":                   `{"a":null,"b":"null","c":"~","d":"","e":"Null"}`,
	"numbers in text":         `{"a":"1e3","b":"0o17","c":"0x1F","d":"017","e":"1_000","f":"190:20:30","g":".inf","h":"NaN","i":"-0","j":"0b11","k":"+1","l":"."}`,
	"numbers":                 `{"a":0,"b":-1,"c":1.5,"d":100000000000000000000,"e":9007199254740992,"f":-9007199254740991,"g":1e-7,"h":1.7976931348623157e+308,"i":5e-324,"j":1e300}`,
	"dates in text":           `{"a":"2019-12-19 09:26:03","b":"2019-12-19","c":"2026-11-22T19:03:11.482Z","d":"12:30"}`,
	"marks":                   `{"a":"=","b":"<<","c":"- a","d":"# no","e":"a: b","f":"a #b","g":"&a","h":"*a","i":"!a","j":"|","k":">","l":"%a","m":"@a","n":"{","o":"[","p":"?","q":",","r":"'","s":"\"","t":"---","u":"...","v":"\\","w":"-","x":":"}`,
	"white space":             `{"a":" ","b":" a","c":"a ","d":"\t","e":"a\tb","f":"\n","g":"\n\n","h":"  \n a"}`,
	"lines":                   `{"a":"one\ntwo","b":"one\ntwo\n","c":"one\n\n\ntwo\n\n","d":"\none","e":" one\n two","f":"one \ntwo","g":"cr\r\nlf","h":"# one\n- two: 3","i":"one\r"}`,
	"unicode":                 `{"a":"zürich 東京 🔒","b":"\u00a0","c":"\u2028\u2029","d":"\ufeff","e":"\u0085","f":"e\u0301","g":"\ud83d\udd12","h":"\uffff"}`,
	"control characters":      `{"a":"\u0000","b":"\u0001\u001b[31m","c":"\u007f","d":"\u0080"}`,
	"keys":                    `{"":1,"1":1,"1.0":1,"true":1,"null":1,"~":1,"=":1,"<<":1,"a b":1,"a: b":1,"- a":1,"2019-12-19":1,"é":1,"#":1,"\n":1,"?":1,"y":1,"0x1F":1,"[a]":1,"{":1}`,
	"keys like the server's":  `{"lock_files":1,"lock_":2,"Lock_token":3,"a":{"lock_token":4}}`,
	"nested":                  `{"data":{"backend":"App1","list":[1,"1",null,true,[],{},[[]],[{"a":[{"b":1}]}],{"a":{},"b":[]}]}}`,
	"HTML":                    `{"a":"<b>&amp;</b>"}`,
	"the original's document": `{"contact_email":"billyjenkins@example.com","data":{"backend":"App1","server":"server-cluster3w1-2","status":"MAINT"},"msg":"Locking App1 on server-cluster3w1-2 for canary deployment"}`,
	"long":                    `{"a":"` + strings.Repeat("words and more words ", 500) + `","b":"` + strings.Repeat("x", 5000) + `"}`,
	"deep":                    strings.Repeat(`{"a":`, lock.MaxDataDepth) + `"yes"` + strings.Repeat(`}`, lock.MaxDataDepth),
	"deep lists":              `{"a":` + strings.Repeat(`[`, lock.MaxDataDepth-1) + `1` + strings.Repeat(`]`, lock.MaxDataDepth-1) + `}`,
}

// testData commits documents and finds them again as they were, in Locked, Updated
// and Unlocked.
func testData(s tested) {
	for name, text := range nastyValues {
		s.t.Run(name, func(t *testing.T) {
			s.t = t
			want, err := lock.ParseData([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			before := s.revision()
			check := func(what string, got lock.Data) {
				t.Helper()
				if got != want {
					t.Errorf("%s:\n got %.2000s\nwant %.2000s", what, got.JSON(), want.JSON())
				}
			}
			s.lock("a", withData(text))
			check("Locked", s.get("a").Data)
			s.commit(s.change(lock.Updated, "a", withData(`{"other":"data"}`)))
			s.commit(s.change(lock.Updated, "a", withData(text)))
			check("Updated", s.get("a").Data)
			check("List", s.list("", "")[0].Data)
			s.unlock("a", withData(text))
			for i, event := range s.events(before, 4) {
				if i != 1 {
					check(fmt.Sprintf("the event %v", event.Type), event.Lock.Data)
				}
			}
		})
	}
}

func testDataTooLarge(s tested) {
	large := withData(fmt.Sprintf(`{"bulk":%q}`, strings.Repeat("x", lock.MaxFileBytes)))
	fits := withData(fmt.Sprintf(`{"bulk":%q}`, strings.Repeat("x", lock.MaxFileBytes*3/4)))

	_, err := s.Commit(s.t.Context(), []lock.Change{s.change(lock.Locked, "a", large)})
	wantError(s.t, "locking with large data", err, lock.ErrDataTooLarge)
	if got := s.get("a"); got.Held() {
		s.t.Errorf("after ErrDataTooLarge the lock is held: %v", got.Token)
	}
	s.nothingAfter(s.start)

	_, err = s.Commit(s.t.Context(), []lock.Change{s.change(lock.Locked, "b"), s.change(lock.Locked, "a", large)})
	wantError(s.t, "locking two, one with large data", err, lock.ErrDataTooLarge)
	if s.get("b").Held() {
		s.t.Error("after ErrDataTooLarge the other lock is held")
	}

	wantError(s.t, "CheckSize of large data", s.CheckSize(s.change(lock.Locked, "a", large).Lock), lock.ErrDataTooLarge)
	if err := s.CheckSize(s.change(lock.Locked, "a", fits).Lock); err != nil {
		s.t.Errorf("CheckSize of data that fit: %v", err)
	}

	was := s.lock("a", fits)
	_, err = s.Commit(s.t.Context(), []lock.Change{s.change(lock.Updated, "a", large)})
	wantError(s.t, "updating to large data", err, lock.ErrDataTooLarge)
	wantLock(s.t, "the lock after ErrDataTooLarge", s.get("a"), was)
	s.unlock("a")
}

func testList(s tested) {
	names := []string{"B", "_x", "a", "a-b", "a.b", "a/b", "a/b/c", "a/b:c", "a0", "lb/db/1", "lb/web-1", "lb/web-10", "lb/web-2", "lbx", "prod/lb/web-1"}
	if !slices.IsSorted(names) {
		s.t.Fatal("the names of this test are not in order")
	}
	shuffled := slices.Clone(names)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, name := range shuffled {
		s.lock(name, withHolder("holder of "+name))
	}
	s.lock("lb/gone")
	s.unlock("lb/gone")

	tests := []struct {
		pattern, after string
		want           []string
	}{
		{"", "", names},
		{"**", "", names},
		{"*", "", []string{"B", "_x", "a", "a-b", "a.b", "a0", "lbx"}},
		{"a", "", []string{"a"}},
		{"a*", "", []string{"a", "a-b", "a.b", "a0"}},
		{"a**", "", []string{"a", "a-b", "a.b", "a/b", "a/b/c", "a/b:c", "a0"}},
		{"a/*", "", []string{"a/b", "a/b:c"}},
		{"a/**", "", []string{"a/b", "a/b/c", "a/b:c"}},
		{"lb/**", "", []string{"lb/db/1", "lb/web-1", "lb/web-10", "lb/web-2"}},
		{"lb/web-*", "", []string{"lb/web-1", "lb/web-10", "lb/web-2"}},
		{"**/web-1", "", []string{"lb/web-1", "prod/lb/web-1"}},
		{"lb/gone", "", nil},
		{"none/**", "", nil},
		{"", "a", names[3:]},
		{"", "a/b", names[6:]},
		{"", "A", names[0:]},
		{"", "lb/gone", []string{"lb/web-1", "lb/web-10", "lb/web-2", "lbx", "prod/lb/web-1"}},
		{"", "prod/lb/web-1", nil},
		{"lb/web-*", "lb/web-1", []string{"lb/web-10", "lb/web-2"}},
		{"lb/web-*", "a", []string{"lb/web-1", "lb/web-10", "lb/web-2"}},
		{"lb/web-*", "zz", nil},
		{"a", "a", nil},
		{"a", "B", []string{"a"}},
	}
	for _, test := range tests {
		var got []string
		for _, l := range s.list(test.pattern, test.after) {
			got = append(got, l.Name.String())
			if want := "holder of " + l.Name.String(); l.Holder != want {
				s.t.Errorf("List(%q, %q): the holder of %v is %q, want %q", test.pattern, test.after, l.Name, l.Holder, want)
			}
		}
		if !slices.Equal(got, test.want) {
			s.t.Errorf("List(%q, %q):\n got %q\nwant %q", test.pattern, test.after, got, test.want)
		}
	}

	// A caller may stop, and go through the same sequence again.
	_, locks := s.List(s.t.Context(), lock.Pattern{}, lock.Name{})
	for range 2 {
		for l, err := range locks {
			if err != nil || l.Name.String() != names[0] {
				s.t.Errorf("the first of the list is %v, %v; want %v", l.Name, err, names[0])
			}
			break
		}
	}
}

// testListEndsWithItsContext: a list that selects nothing of many locks ends too.
func testListEndsWithItsContext(s tested) {
	const locks = 1000
	var changes []lock.Change
	for i := range locks {
		changes = append(changes, s.change(lock.Locked, fmt.Sprintf("lock-%d", i)))
	}
	s.commit(changes...)
	ctx, cancel := context.WithCancel(s.t.Context())
	_, seq := s.List(ctx, lock.MustParsePattern("*nothing*"), lock.Name{})
	cancel()
	var last error
	for l, err := range seq {
		if err == nil {
			s.t.Errorf("a list of nothing has %v", l.Name)
		}
		last = err
	}
	wantError(s.t, "a list whose context has ended", last, context.Canceled)
}

// testListIsOfOneRevision changes locks two at a time while lists are read, and
// while one is being read.
func testListIsOfOneRevision(s tested) {
	numbered := func(kind lock.EventType, n int) []lock.Change {
		data := withData(fmt.Sprintf(`{"n":%d}`, n))
		return []lock.Change{s.change(kind, "a", data), s.change(kind, "z", data)}
	}
	first := s.commit(numbered(lock.Locked, 0)...)
	if got := s.revision(); got != first[1].Revision {
		s.t.Errorf("the list's revision is %d, want that of the last event, %d", got, first[1].Revision)
	}

	_, locks := s.List(s.t.Context(), lock.Pattern{}, lock.Name{})
	var seen []lock.Lock
	for l, err := range locks {
		if err != nil {
			s.t.Fatal(err)
		}
		if len(seen) == 0 {
			s.commit(numbered(lock.Updated, 1)...)
			s.lock("b")
		}
		seen = append(seen, l)
	}
	if len(seen) != 2 || !sameLock(seen[0], first[0].Lock) || !sameLock(seen[1], first[1].Lock) {
		s.t.Errorf("a list during which locks change:\n got %+v\nwant %+v and %+v", seen, first[0].Lock, first[1].Lock)
	}
	s.unlock("b")
	s.commit(numbered(lock.Updated, 2)...)

	done := make(chan struct{})
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			var last lock.Revision
			for ended := false; !ended; {
				select {
				case <-done:
					ended = true // once more
				default:
				}
				revision, locks := s.List(s.t.Context(), lock.Pattern{}, lock.Name{})
				if revision < last {
					s.t.Errorf("a later list is of the earlier revision %d, not %d", revision, last)
					return
				}
				last = revision
				var page []lock.Lock
				for l, err := range locks {
					if err != nil {
						s.t.Error(err)
						return
					}
					page = append(page, l)
				}
				if len(page) != 2 || page[0].Data != page[1].Data || page[1].Revision != revision {
					s.t.Errorf("the list of revision %d is of more than one revision: %+v", revision, page)
					return
				}
			}
		})
	}
	for n := range 20 {
		s.commit(numbered(lock.Updated, n+3)...)
	}
	close(done)
	group.Wait()
}

// testListAndEventsMeet takes a list while locks change, and brings it up to date by
// the events after its revision.
func testListAndEventsMeet(s tested) {
	const writers, rounds = 4, 6
	const total = writers * (3*rounds + 1)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			name := fmt.Sprintf("lock/%d", w)
			for range rounds {
				s.lock(name, withHolder("x"))
				s.commit(s.change(lock.Updated, name, withData(`{"a":1}`)))
				s.unlock(name)
			}
			s.lock(name, withHolder("last"))
		})
	}
	type snapshot struct {
		revision lock.Revision
		locks    map[lock.Name]lock.Lock
	}
	var snapshots []snapshot
	for range 5 {
		revision, locks := s.List(s.t.Context(), lock.Pattern{}, lock.Name{})
		taken := snapshot{revision, map[lock.Name]lock.Lock{}}
		for l, err := range locks {
			if err != nil {
				s.t.Fatal(err)
			}
			taken.locks[l.Name] = l
		}
		snapshots = append(snapshots, taken)
		if revision >= s.start+total/2 {
			break
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		_, _, err := s.Events(ctx, lock.Pattern{}, revision, patience) // the next when something has happened
		cancel()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	group.Wait()
	all := s.events(s.start, total)
	for _, taken := range snapshots {
		first := slices.IndexFunc(all, func(e lock.Event) bool { return e.Revision > taken.revision })
		if first < 0 {
			first = len(all)
		}
		if taken.revision > s.start {
			for i, got := range s.events(taken.revision, len(all)-first) {
				if !sameEvent(got, all[first+i]) {
					s.t.Fatalf("Events(%d), number %d:\n got %+v\nwant %+v", taken.revision, i, got, all[first+i])
				}
			}
		}
		for _, e := range all[first:] {
			if e.Type == lock.Unlocked {
				delete(taken.locks, e.Lock.Name)
			} else {
				taken.locks[e.Lock.Name] = e.Lock
			}
		}
		now := s.list("", "")
		if len(now) != len(taken.locks) {
			s.t.Errorf("the list of revision %d with the events since has %d locks, want %d", taken.revision, len(taken.locks), len(now))
		}
		for _, want := range now {
			wantLock(s.t, fmt.Sprintf("the list of revision %d with the events since", taken.revision), taken.locks[want.Name], want)
		}
	}
}

func testConditions(s tested) {
	tests := []struct {
		name string
		held bool
		kind lock.EventType
		prev seen
		want error
	}{
		{"lock a free lock", false, lock.Locked, seenFree, nil},
		{"lock a free lock seen as held", false, lock.Locked, seenEarlier, lock.ErrConflict},
		{"lock a held lock seen as free", true, lock.Locked, seenFree, lock.ErrConflict},
		{"replace a hold", true, lock.Locked, seenNow, nil},
		{"replace an earlier hold", true, lock.Locked, seenEarlier, lock.ErrConflict},
		{"replace a later hold", true, lock.Locked, seenLater, lock.ErrConflict},
		{"update a hold", true, lock.Updated, seenNow, nil},
		{"update an earlier hold", true, lock.Updated, seenEarlier, lock.ErrConflict},
		{"update a held lock seen as free", true, lock.Updated, seenFree, lock.ErrConflict},
		{"update a free lock", false, lock.Updated, seenFree, lock.ErrConflict},
		{"update a lock that has become free", false, lock.Updated, seenEarlier, lock.ErrConflict},
		{"unlock a hold", true, lock.Unlocked, seenNow, nil},
		{"unlock an earlier hold", true, lock.Unlocked, seenEarlier, lock.ErrConflict},
		{"unlock a held lock seen as free", true, lock.Unlocked, seenFree, lock.ErrConflict},
		{"unlock a free lock", false, lock.Unlocked, seenFree, lock.ErrConflict},
		{"unlock a lock that has become free", false, lock.Unlocked, seenEarlier, lock.ErrConflict},
		{"extend a hold", true, lock.Extended, seenNow, nil},
		{"extend an earlier hold", true, lock.Extended, seenEarlier, lock.ErrConflict},
		{"extend a held lock seen as free", true, lock.Extended, seenFree, lock.ErrConflict},
		{"extend a free lock", false, lock.Extended, seenFree, lock.ErrConflict},
		{"extend a lock that has become free", false, lock.Extended, seenEarlier, lock.ErrConflict},
	}
	for i, test := range tests {
		s.t.Run(test.name, func(t *testing.T) {
			s.t = t
			name := fmt.Sprintf("conditions/%d", i)
			earlier := s.lock(name, withHolder("earlier"))
			s.unlock(name)
			if test.held {
				s.lock(name, withHolder("present"))
			}
			before, revision := s.get(name), s.revision()
			change := s.change(test.kind, name, withHolder("new"), withTTL(time.Minute))
			change.Prev = map[seen]lock.Revision{
				seenFree:    0,
				seenEarlier: earlier.Revision,
				seenNow:     before.Revision,
				seenLater:   before.Revision + 1,
			}[test.prev]
			_, err := s.Commit(t.Context(), []lock.Change{change})
			if !errors.Is(err, test.want) {
				t.Fatalf("got error %v, want %v", err, test.want)
			}
			if test.want != nil {
				wantLock(t, "the lock after the conflict", s.get(name), before)
				s.nothingAfter(revision)
				s.unlock("the-end-of-the-test")
			}
		})
	}
}

// seen is how the lock was seen that a change is made for.
type seen int

const (
	seenFree seen = iota
	seenEarlier
	seenNow
	seenLater
)

// testConflictIsVisible has goroutines change one lock, each until it has succeeded:
// who is told of a conflict sees at once what stood in the way.
func testConflictIsVisible(s tested) {
	s.lock("a")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for done := 0; done < 3; {
				change := s.change(lock.Updated, "a")
				_, err := s.Commit(s.t.Context(), []lock.Change{change})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, lock.ErrConflict):
					s.t.Errorf("Commit: %v", err)
					return
				case s.get("a").Revision == change.Prev:
					s.t.Errorf("after ErrConflict, Get still shows revision %d", change.Prev)
					return
				}
			}
		})
	}
	group.Wait()
	s.events(s.start, 1+8*3)
}

func testAllOrNothing(s tested) {
	a := s.lock("a", withHolder("x"))
	b := s.lock("b", withHolder("x"))
	c := s.lock("c", withHolder("x"))
	revision := s.revision()

	good := []lock.Change{
		s.change(lock.Updated, "a", withData(`{"n":1}`)),
		s.change(lock.Unlocked, "b"),
		s.change(lock.Extended, "c", withTTL(time.Minute)),
		s.change(lock.Locked, "d/e", withHolder("y")),
	}
	for i := range good {
		changes := slices.Clone(good)
		changes[i].Prev += 1000
		_, err := s.Commit(s.t.Context(), changes)
		wantError(s.t, fmt.Sprintf("Commit with a conflict in change %d", i), err, lock.ErrConflict)
		wantLock(s.t, "the lock to be updated", s.get("a"), a)
		wantLock(s.t, "the lock to be unlocked", s.get("b"), b)
		wantLock(s.t, "the lock to be extended", s.get("c"), c)
		if s.get("d/e").Held() {
			s.t.Error("the lock to be locked is held")
		}
		if got := s.revision(); got != revision {
			s.t.Errorf("the revision has become %d, want %d", got, revision)
		}
	}

	got := s.commit(good...)
	want := []lock.EventType{lock.Updated, lock.Unlocked, 0, lock.Locked}
	last := revision
	var made []lock.Event
	for i, event := range got {
		if event.Type != want[i] {
			s.t.Errorf("event %d is %v, want %v", i, event.Type, want[i])
		}
		if good[i].Type == lock.Extended {
			if event != (lock.Event{}) {
				s.t.Errorf("the event of an Extended change is %+v, want none", event)
			}
			continue
		}
		if event.Lock.Name != good[i].Lock.Name || event.Revision <= last || event.Lock.Revision != event.Revision {
			s.t.Errorf("event %d is %+v, want one of %v with a revision above %d", i, event, good[i].Lock.Name, last)
		}
		last = event.Revision
		made = append(made, event)
	}
	for i, event := range s.events(revision, len(made)) {
		if !sameEvent(event, made[i]) {
			s.t.Errorf("Events, number %d:\n got %+v\nwant %+v", i, event, made[i])
		}
	}
	if got := s.revision(); got != last {
		s.t.Errorf("the list's revision is %d, want that of the last event, %d", got, last)
	}
	if got := s.get("c"); got.TTL != time.Minute || got.Revision != c.Revision {
		s.t.Errorf("the extended lock is %+v", got)
	}
}

// testCheckCommit: what can never be committed is refused, whatever the state is.
func testCheckCommit(s tested) {
	held := s.lock("a")
	revision := s.revision()
	free := func(c *lock.Change) { c.Prev = 0 }
	a, noName := lock.MustParseName("a"), s.change(lock.Locked, "c")
	noName.Lock.Name = lock.Name{}
	type changes = []lock.Change
	tests := []struct {
		name    string
		changes changes
		guards  []lock.Guard
		want    error
	}{
		{"nothing", nil, nil, lock.ErrInvalidArgument},
		{"guards alone", nil, []lock.Guard{{Name: a, Revision: held.Revision}}, lock.ErrInvalidArgument},
		{"no name", changes{noName}, nil, lock.ErrInvalidName},
		{"no type", changes{s.change(0, "a")}, nil, lock.ErrInvalidArgument},
		{"a reset", changes{s.change(lock.Reset, "a")}, nil, lock.ErrInvalidArgument},
		{"a synced", changes{s.change(lock.Synced, "a")}, nil, lock.ErrInvalidArgument},
		{"updated twice", changes{s.change(lock.Updated, "a"), s.change(lock.Updated, "a")}, nil, lock.ErrInvalidArgument},
		{"updated and unlocked", changes{s.change(lock.Updated, "a"), s.change(lock.Unlocked, "a")}, nil, lock.ErrInvalidArgument},
		{"extended and updated", changes{s.change(lock.Extended, "a"), s.change(lock.Updated, "a")}, nil, lock.ErrInvalidArgument},
		{"locked twice", changes{s.change(lock.Locked, "a"), s.change(lock.Locked, "a", free)}, nil, lock.ErrInvalidArgument},
		{"granted and ended", changes{s.change(lock.Locked, "a"), s.change(lock.Unlocked, "a")}, nil, lock.ErrInvalidArgument},
		{"handed over as what is held", changes{s.change(lock.Unlocked, "a"), s.change(lock.Locked, "a")}, nil, lock.ErrInvalidArgument},
		{"handed over and on", changes{s.change(lock.Unlocked, "a"), s.change(lock.Locked, "a", free), s.change(lock.Locked, "a", free)}, nil, lock.ErrInvalidArgument},
		{"handed over and back", changes{s.change(lock.Unlocked, "a"), s.change(lock.Locked, "a", free), s.change(lock.Unlocked, "a", free)}, nil, lock.ErrInvalidArgument},
		{"changed and guarded", changes{s.change(lock.Updated, "a")}, []lock.Guard{{Name: a, Revision: held.Revision}}, lock.ErrInvalidArgument},
		{"guarded twice", changes{s.change(lock.Locked, "c")}, []lock.Guard{{Name: a, Revision: held.Revision}, {Name: a, Revision: held.Revision}}, lock.ErrInvalidArgument},
		{"guarded without a name", changes{s.change(lock.Locked, "c")}, []lock.Guard{{}}, lock.ErrInvalidName},
	}
	for _, test := range tests {
		all := test.changes
		if len(all) > 0 {
			all = append(changes{s.change(lock.Locked, "b")}, all...)
		}
		_, err := s.Commit(s.t.Context(), all, test.guards...)
		wantError(s.t, test.name, err, test.want)
		wantLock(s.t, test.name+": the lock", s.get("a"), held)
		if s.get("b").Held() || s.get("c").Held() {
			s.t.Errorf("%s: another lock is held", test.name)
		}
	}
	s.nothingAfter(revision)
}

// testHandOver: a hold ends and the lock is granted to the next, in one commit.
func testHandOver(s tested) {
	by := func(actor string) func(*lock.Change) {
		return func(c *lock.Change) { c.Cause, c.Actor, c.Reason = lock.Forced, actor, "because "+actor }
	}
	next := func(name, holder string) lock.Change {
		return s.change(lock.Locked, name, withHolder(holder), withData(`{"msg":"next"}`), withTTL(time.Minute), withPrev(0))
	}
	a, b := s.lock("a", withHolder("alice")), s.lock("b", withHolder("bob"))
	after := s.revision()
	made := s.commit(
		s.change(lock.Unlocked, "a", by("carol"), withData(`{"msg":"done"}`)),
		s.change(lock.Unlocked, "b"),
		s.change(lock.Locked, "c"),
		next("b", "next of b"),
		next("a", "next of a"))
	for i, event := range s.events(after, 5) {
		if !sameEvent(event, made[i]) || event.Revision != after+lock.Revision(i)+1 {
			s.t.Errorf("event %d is %+v, and Commit returned %+v", i, event, made[i])
		}
	}
	end := a
	end.Revision, end.Data = after+1, made[0].Lock.Data
	wantLock(s.t, "the end of a", made[0].Lock, end)
	if e := made[0]; e.Type != lock.Unlocked || e.Cause != lock.Forced || e.Actor != "carol" || e.Reason != "because carol" || e.Lock.Data.JSON() != `{"msg":"done"}` {
		s.t.Errorf("the end of a is %+v", e)
	}
	if made[1].Type != lock.Unlocked || made[1].Lock.Token != b.Token {
		s.t.Errorf("the end of b is %+v", made[1])
	}
	for i, name := range map[int]string{3: "b", 4: "a"} {
		e := made[i]
		if e.Type != lock.Locked || e.Cause != lock.Request || e.Lock.Token != lock.Token(e.Revision) || e.Lock.Holder != "next of "+name || e.Lock.TTL != time.Minute || e.Lock.AcquireTime != e.Time {
			s.t.Errorf("the grant of %s is %+v", name, e)
		}
		wantLock(s.t, "Get of "+name, s.get(name), e.Lock)
	}

	// All or none of it.
	held, revision := s.get("a"), s.revision()
	large := withData(fmt.Sprintf(`{"bulk":%q}`, strings.Repeat("x", lock.MaxFileBytes)))
	for _, test := range []struct {
		name    string
		changes []lock.Change
		want    error
	}{
		{"a hold of before", []lock.Change{s.change(lock.Unlocked, "a", withPrev(a.Revision)), next("a", "x")}, lock.ErrConflict},
		{"a free lock", []lock.Change{s.change(lock.Unlocked, "d"), next("d", "x")}, lock.ErrConflict},
		{"and another lock that is held", []lock.Change{s.change(lock.Unlocked, "a"), next("a", "x"), next("c", "x")}, lock.ErrConflict},
		{"too large", []lock.Change{s.change(lock.Unlocked, "a"), s.change(lock.Locked, "a", withPrev(0), large)}, lock.ErrDataTooLarge},
	} {
		_, err := s.Commit(s.t.Context(), test.changes)
		wantError(s.t, "handing over "+test.name, err, test.want)
		wantLock(s.t, "the lock after handing over "+test.name, s.get("a"), held)
		if s.get("d").Held() {
			s.t.Errorf("handing over %s: d is held", test.name)
		}
	}
	s.nothingAfter(revision)
	s.unlock("a") // the end alone can be committed
	if s.get("a").Held() {
		s.t.Error("a is held after its end")
	}
	s.neverFree("b", func() { s.commit(s.change(lock.Unlocked, "b"), next("b", "x")) })
}

// testHandOverOfMany: 64 locks are taken, handed over and released in one commit each, or
// in none.
func testHandOverOfMany(s tested) {
	const many = 64
	names := make([]string, many)
	changes := make([]lock.Change, many)
	for i := range names {
		names[i] = fmt.Sprintf("many/%d/%d", i%5, i)
		changes[i] = s.change(lock.Locked, names[i], withHolder("first"))
	}
	s.commit(changes...)
	revision := s.revision()
	handOver := func() (changes []lock.Change) {
		for _, name := range names {
			changes = append(changes, s.change(lock.Unlocked, name))
		}
		for _, name := range names {
			changes = append(changes, s.change(lock.Locked, name, withHolder("next"), withPrev(0)))
		}
		return changes
	}
	holders := func(want string) {
		s.t.Helper()
		held := s.list("many/**", "")
		if len(held) != many {
			s.t.Errorf("%d locks are held, want %d", len(held), many)
		}
		for _, l := range held {
			if l.Holder != want {
				s.t.Errorf("%v is held by %q, want %q", l.Name, l.Holder, want)
			}
		}
	}
	for _, outdated := range []int{0, many - 1} {
		changes := handOver()
		changes[outdated].Prev--
		_, err := s.Commit(s.t.Context(), changes)
		wantError(s.t, fmt.Sprintf("with change %d outdated", outdated), err, lock.ErrConflict)
		holders("first")
	}
	taken := append(handOver(), s.change(lock.Locked, "other", withPrev(1)))
	_, err := s.Commit(s.t.Context(), taken)
	wantError(s.t, "with another lock's change outdated", err, lock.ErrConflict)
	holders("first")
	s.commit(handOver()...)
	holders("next")
	s.events(revision, 2*many)
	changes = changes[:0]
	for _, name := range names {
		changes = append(changes, s.change(lock.Unlocked, name))
	}
	s.commit(changes...)
	if held := s.list("", ""); len(held) > 0 {
		s.t.Errorf("in the end %d locks are held", len(held))
	}
}

// testGuards: a commit is made where its guards hold, and they change nothing.
func testGuards(s tested) {
	tests := []struct {
		name string
		held bool
		at   seen
		want error
	}{
		{"free", false, seenFree, nil},
		{"free, and seen as held", false, seenEarlier, lock.ErrConflict},
		{"held", true, seenNow, nil},
		{"held, and seen as free", true, seenFree, lock.ErrConflict},
		{"held, and seen with another hold", true, seenEarlier, lock.ErrConflict},
		{"held, and seen as it will be", true, seenLater, lock.ErrConflict},
	}
	for i, test := range tests {
		s.t.Run(test.name, func(t *testing.T) {
			s.t = t
			name, guarded := fmt.Sprintf("changed/%d", i), fmt.Sprintf("guarded/%d", i)
			earlier := s.lock(guarded)
			s.unlock(guarded)
			if test.held {
				s.lock(guarded)
			}
			before, revision := s.get(guarded), s.revision()
			guard := lock.Guard{Name: before.Name, Revision: map[seen]lock.Revision{
				seenFree:    0,
				seenEarlier: earlier.Revision,
				seenNow:     before.Revision,
				seenLater:   before.Revision + 1,
			}[test.at]}
			_, err := s.Commit(t.Context(), []lock.Change{s.change(lock.Locked, name)}, guard, lock.Guard{Name: lock.MustParseName("quite-free")})
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Fatalf("got error %v, want %v", err, test.want)
			}
			wantLock(t, "the lock that is guarded", s.get(guarded), before)
			if s.get(name).Held() != (test.want == nil) {
				t.Errorf("the lock that was to be granted is %+v", s.get(name))
			}
			if test.want == nil {
				s.events(revision, 1)
				return
			}
			s.nothingAfter(revision)
			s.unlock("the-end-of-the-test")
		})
	}
}

// testGuardsExclude has goroutines grant two locks, each on the condition that the other
// is free: of each two at most one is held.
func testGuardsExclude(s tested) {
	const rounds, contenders = 20, 8
	for round := range rounds {
		names := []string{fmt.Sprintf("a/%d", round), fmt.Sprintf("b/%d", round)}
		results := make(chan error, contenders)
		start := make(chan struct{})
		for i := range contenders {
			change := s.change(lock.Locked, names[i%2])
			guard := lock.Guard{Name: lock.MustParseName(names[1-i%2])}
			go func() {
				<-start
				_, err := s.Commit(s.t.Context(), []lock.Change{change}, guard)
				results <- err
			}()
		}
		close(start)
		winners := 0
		for range contenders {
			switch err := <-results; {
			case err == nil:
				winners++
			case !errors.Is(err, lock.ErrConflict):
				s.t.Errorf("round %d: %v", round, err)
			case !s.get(names[0]).Held() && !s.get(names[1]).Held():
				s.t.Errorf("round %d: after ErrConflict, Get shows both locks free", round)
			}
		}
		if winners != 1 {
			s.t.Errorf("round %d: %d of %d succeeded, want 1", round, winners, contenders)
		}
	}
}

// testCommitAfterItsContext: who does not wait any more is told what is known.
func testCommitAfterItsContext(s tested) {
	ended, cancel := context.WithCancel(s.t.Context())
	cancel()
	for i := range 20 {
		before := s.revision()
		name := fmt.Sprint("a", i)
		events, err := s.Commit(ended, []lock.Change{s.change(lock.Locked, name)})
		switch {
		case err == nil:
			wantLock(s.t, "the lock", s.get(name), events[0].Lock)
		case errors.Is(err, lock.ErrReadOnly):
			s.nothingAfter(before)
			s.unlock("the-end-of-the-test")
			if s.get(name).Held() {
				s.t.Errorf("the lock is held after %v", err)
			}
		default:
			pending, ok := errors.AsType[*lock.PendingError](err)
			if !ok || !errors.Is(err, lock.ErrOutcomeUnknown) {
				s.t.Fatalf("Commit with a ctx that has ended: %v", err)
			}
			events, err := pending.Outcome()
			if err != nil {
				s.t.Fatalf("the outcome: %v", err)
			}
			wantLock(s.t, "the lock", s.get(name), events[0].Lock)
		}
	}
}

func testTokens(s tested) {
	var last lock.Token
	grant := func(name string) {
		s.t.Helper()
		before := s.revision()
		l := s.lock(name)
		if l.Token <= last || l.Token != lock.Token(l.Revision) || l.Revision <= before {
			s.t.Errorf("the token is %d and the revision %d, want the same number, above %d and %d", l.Token, l.Revision, last, before)
		}
		last = l.Token
	}
	for _, name := range []string{"a", "b", "a", "a", "b", "c/d"} {
		grant(name) // a lock that is held is granted over
	}
	a := s.get("a")
	updated := s.commit(s.change(lock.Updated, "a"))[0]
	if updated.Lock.Token != a.Token || updated.Lock.Revision <= a.Revision {
		s.t.Errorf("an update made token %d, revision %d of token %d, revision %d", updated.Lock.Token, updated.Lock.Revision, a.Token, a.Revision)
	}
	last = max(last, lock.Token(updated.Revision))
	for range 3 {
		last = max(last, lock.Token(s.unlock("a").Revision))
		grant("a")
	}
}

func testExtended(s tested) {
	expire := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	l := s.lock("a", withHolder("x"), withData(`{"msg":"kept"}`), withTTL(time.Minute))
	revision := s.revision()
	steps := []struct {
		name string
		edit func(*lock.Change)
	}{
		{"longer", withTTL(time.Hour)},
		{"shorter", withTTL(1500 * time.Millisecond)},
		{"to an expire time", withExpireTime(expire)},
		{"to no end", withTTL(0)},
		{"to a ttl again", withTTL(time.Minute)},
	}
	for _, step := range steps {
		change := s.change(lock.Extended, "a", step.edit)
		if event := s.commit(change)[0]; event != (lock.Event{}) {
			s.t.Errorf("%s: the event is %+v, want none", step.name, event)
		}
		want := l
		want.TTL, want.ExpireTime = change.Lock.TTL, change.Lock.ExpireTime
		wantLock(s.t, step.name, s.get("a"), want)
		if list := s.list("a", ""); len(list) != 1 || !sameLock(list[0], want) {
			s.t.Errorf("%s: List: got %+v, want just %+v", step.name, list, want)
		}
	}
	if got := s.revision(); got != revision {
		s.t.Errorf("the revision has become %d, want %d", got, revision)
	}
	s.nothingAfter(revision)
	if got := s.commit(s.change(lock.Updated, "a"))[0].Lock; got.TTL != time.Minute || got.Data != l.Data {
		s.t.Errorf("the update after has ttl %v and data %v", got.TTL, got.Data.JSON())
	}
}

func testUnlocked(s tested) {
	was := s.lock("a", withHolder("x"), withData(`{"msg":"at work"}`), withTTL(time.Minute))
	event := s.unlock("a", withData(`{"msg":"canary complete, READY"}`), func(c *lock.Change) {
		c.Cause, c.Actor, c.Reason = lock.Forced, "boss", "it\nhangs"
	})
	want := was
	want.Revision = event.Revision
	want.Data = event.Lock.Data
	wantLock(s.t, "the lock in the event", event.Lock, want)
	if got := event.Lock.Data.String("msg"); got != "canary complete, READY" {
		s.t.Errorf("the closing message is %q", got)
	}
	if event.Type != lock.Unlocked || event.Cause != lock.Forced || event.Actor != "boss" || event.Reason != "it\nhangs" {
		s.t.Errorf("the event is %+v", event)
	}
	if got := s.events(was.Revision, 1)[0]; !sameEvent(got, event) {
		s.t.Errorf("Events:\n got %+v\nwant %+v", got, event)
	}
	if got := s.list("", ""); len(got) != 0 {
		s.t.Errorf("List: got %+v, want nothing", got)
	}

	again := s.lock("a")
	if again.Holder != "" || !again.Data.IsEmpty() || again.TTL != 0 {
		s.t.Errorf("the next hold has something of the one before: %+v", again)
	}
}

// testOneWinner has goroutines change one lock by compare-and-swap from the same
// state: in each round one succeeds.
func testOneWinner(s tested) {
	const contenders, rounds = 64, 8
	for round := range rounds {
		kind := []lock.EventType{lock.Locked, lock.Updated, lock.Locked, lock.Unlocked}[round%4]
		change := s.change(kind, "a")
		results := make(chan error, contenders)
		start := make(chan struct{})
		for i := range contenders {
			go func() {
				<-start
				c := change
				c.Actor = fmt.Sprint(i)
				_, err := s.Commit(s.t.Context(), []lock.Change{c})
				results <- err
			}()
		}
		close(start)
		winners := 0
		for range contenders {
			switch err := <-results; {
			case err == nil:
				winners++
			case !errors.Is(err, lock.ErrConflict):
				s.t.Errorf("round %d, %v: %v", round, kind, err)
			}
		}
		if winners != 1 {
			s.t.Errorf("round %d, %v: %d of %d succeeded, want 1", round, kind, winners, contenders)
		}
	}
	s.events(s.start, rounds+rounds/4) // a hold that replaces another makes two
}

// testReplace: a hold that takes the place of another ends it, in one step.
func testReplace(s tested) {
	former := s.lock("a", withHolder("alice"), withData(`{"msg":"first"}`), withTTL(time.Minute))
	other := s.lock("b", withHolder("bob"))
	refused := s.change(lock.Locked, "a", withPrev(former.Revision-1))
	_, err := s.Commit(s.t.Context(), []lock.Change{refused})
	wantError(s.t, "a hold in the place of one that is not the present", err, lock.ErrConflict)

	by := func(c *lock.Change) { c.Actor, c.Reason, c.Lock.Warnings = "alice@corp", "because", "of another file" }
	replace := s.change(lock.Locked, "a", withHolder("alice"), withData(`{"msg":"next"}`), by)
	extend := s.change(lock.Extended, "c")
	extend.Prev = s.lock("c").Revision
	after := s.revision()
	made := s.commit(replace, extend, s.change(lock.Unlocked, "b"))
	told := s.events(after, 3)
	for i, event := range told {
		if event.Revision != after+lock.Revision(i)+1 {
			s.t.Errorf("event %d has revision %d, want %d", i, event.Revision, after+lock.Revision(i)+1)
		}
	}
	if !sameEvent(told[1], made[0]) || !sameEvent(told[2], made[2]) || made[2].Lock.Token != other.Token {
		s.t.Errorf("Commit returned %+v, and Events %+v", made, told)
	}
	end := told[0]
	if end.Type != lock.Unlocked || end.Cause != lock.Request || end.Actor != "alice@corp" || !strings.Contains(end.Reason, fmt.Sprint(made[0].Lock.Token)) {
		s.t.Errorf("the end of the former hold is %+v; want it to be by who has the next, token %d", end, made[0].Lock.Token)
	}
	former.Revision = end.Revision
	wantLock(s.t, "the hold that ended", end.Lock, former)
	if next := told[1]; next.Type != lock.Locked || next.Reason != "because" || next.Lock.Data.JSON() != `{"msg":"next"}` || next.Lock.Token != lock.Token(next.Revision) {
		s.t.Errorf("the next hold is %+v", next)
	}
	wantLock(s.t, "Get", s.get("a"), made[0].Lock)
	if l := s.get("a"); l.Warnings != "" || told[1].Lock.Warnings != "" {
		s.t.Errorf("the warnings of a change have come through: %+v, %+v", l, told[1])
	}
	if events, _, err := s.Events(s.t.Context(), lock.Pattern{}, end.Revision, time.Hour); err != nil || !sameEvent(events[0], told[1]) {
		s.t.Errorf("Events after the end alone: got %+v, %v", events, err)
	}

	s.neverFree("a", func() { s.lock("a") })
}

// neverFree replaces a held lock's hold again and again, and checks that nobody ever sees
// the lock free.
func (s tested) neverFree(name string, replace func()) {
	s.t.Helper()
	stop := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if l := s.get(name); !l.Held() {
				s.t.Errorf("the lock is free while one hold takes the place of another")
				return
			}
			if _, err := s.Commit(s.t.Context(), []lock.Change{s.change(lock.Locked, name, withPrev(0))}); !errors.Is(err, lock.ErrConflict) {
				s.t.Errorf("a grant of the lock as a free one: got %v, want ErrConflict", err)
				return
			}
		}
	})
	const rounds = 50
	after := s.revision()
	for range rounds {
		replace()
	}
	close(stop)
	looking.Wait()
	s.events(after, 2*rounds)
}

// testEventsForAll has readers, from the start and from the middle, while goroutines
// commit: each reads every event once and in order.
func testEventsForAll(s tested) {
	const writers, rounds, readers = 8, 5, 16
	const total = writers * rounds * 4
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()

	read := make([][]lock.Event, readers)
	var reading sync.WaitGroup
	for r := range readers {
		reading.Go(func() {
			var err error
			if read[r], err = readEvents(ctx, s.Store, s.start, total); err != nil {
				s.t.Errorf("reader %d: %v", r, err)
			}
		})
	}
	committed := make([][]lock.Event, writers)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			name := fmt.Sprintf("dir-%d/lock", w)
			for n := range rounds {
				data := withData(fmt.Sprintf(`{"n":%d}`, n))
				pair := name + "-pair"
				for _, kind := range []lock.EventType{lock.Locked, lock.Unlocked} {
					events := s.commit(s.change(kind, name, data), s.change(kind, pair, data))
					committed[w] = append(committed[w], events...)
				}
			}
		})
	}
	writing.Wait()
	if s.t.Failed() {
		cancel() // the readers wait for events that do not come
	}
	reading.Wait()
	if s.t.Failed() {
		return
	}
	for r, events := range read {
		for i := range events {
			if !sameEvent(events[i], read[0][i]) {
				s.t.Fatalf("event %d of reader %d is %+v, of reader 0 %+v", i, r, events[i], read[0][i])
			}
		}
	}
	index := make(map[lock.Revision]int)
	last := s.start
	for i, event := range read[0] {
		if event.Revision <= last {
			s.t.Errorf("event %d has revision %d after %d", i, event.Revision, last)
		}
		last = event.Revision
		index[event.Revision] = i
	}
	for w, events := range committed {
		for i, event := range events {
			at, ok := index[event.Revision]
			if !ok || !sameEvent(read[0][at], event) {
				s.t.Errorf("event %d that writer %d was told is not among those read: %+v", i, w, event)
			} else if i%2 == 1 && index[events[i-1].Revision] != at-1 {
				s.t.Errorf("between the two events of one commit there is another's, at %d", at)
			}
		}
	}
	for i := 0; i < total; i += total / 7 {
		middle := read[0][i].Revision
		if got := s.events(middle, total-i-1); len(got) > 0 && !sameEvent(got[0], read[0][i+1]) {
			s.t.Errorf("Events(%d) begins with %+v, want %+v", middle, got[0], read[0][i+1])
		}
	}
}

// testEventsOfPattern: who reads events of some locks is told all of theirs and no
// others, and how far that reaches.
func testEventsOfPattern(s tested) {
	var of = make(map[string][]lock.Event)
	for range 3 {
		for _, name := range []string{"lb/a", "lb/b", "db/a"} {
			of[name] = append(of[name], s.commit(s.change(lock.Locked, name))[0])
		}
		for _, name := range []string{"db/a", "lb/b", "lb/a"} {
			of[name] = append(of[name], s.unlock(name))
		}
	}
	all, now := append(append(slices.Clone(of["lb/a"]), of["lb/b"]...), of["db/a"]...), s.revision()
	slices.SortFunc(all, func(a, b lock.Event) int { return cmp.Compare(a.Revision, b.Revision) })
	for _, pattern := range []string{"", "lb/a", "lb/*", "**/a", "lb/**", "db/b", "l*"} {
		p := lock.MustParsePattern(pattern)
		want := slices.DeleteFunc(slices.Clone(all), func(e lock.Event) bool { return !p.Match(e.Lock.Name) })
		var got []lock.Event
		for after := s.start; after < now; {
			events, until, err := s.Events(s.t.Context(), p, after, 0)
			if err != nil {
				s.t.Fatalf("Events(%q, %d): %v", pattern, after, err)
			}
			if until <= after || len(events) > 0 && until < events[len(events)-1].Revision {
				s.t.Fatalf("Events(%q, %d): got %d events until %d", pattern, after, len(events), until)
			}
			got, after = append(got, events...), until
		}
		if !slices.EqualFunc(got, want, sameEvent) {
			s.t.Errorf("Events(%q): got %+v, want %+v", pattern, got, want)
		}
	}
	// A change of another lock ends no wait, and what comes after it is told.
	read := make(chan []lock.Event)
	go func() {
		events, _, err := s.Events(s.t.Context(), lock.MustParsePattern("lb/a"), now, patience)
		if err != nil {
			s.t.Errorf("Events(lb/a, %d): %v", now, err)
		}
		read <- events
	}()
	s.lock("lb/b")
	s.lock("db/a")
	l := s.lock("lb/a")
	if got := <-read; len(got) != 1 || got[0].Revision != l.Revision {
		s.t.Errorf("Events(lb/a, %d): got %+v, want the event of revision %d", now, got, l.Revision)
	}
	if events, until, err := s.Events(s.t.Context(), lock.MustParsePattern("lb/c"), now, time.Millisecond); err != nil || len(events) > 0 || until < l.Revision {
		s.t.Errorf("Events(lb/c, %d): got %+v until %d, %v; want none until %d", now, events, until, err, l.Revision)
	}
}

func testEventsWait(s tested) {
	ended, cancel := context.WithCancel(s.t.Context())
	results := make(chan error, 2)
	go func() {
		_, _, err := s.Events(ended, lock.Pattern{}, s.start, time.Hour)
		results <- err
	}()
	cancel()
	wantError(s.t, "Events of a ctx that ends", <-results, context.Canceled)

	deadline, cancel := context.WithTimeout(s.t.Context(), time.Millisecond)
	defer cancel()
	_, _, err := s.Events(deadline, lock.Pattern{}, s.start, time.Hour)
	wantError(s.t, "Events of a ctx with a deadline", err, context.DeadlineExceeded)

	for range 3 {
		revision := s.revision()
		read := make(chan []lock.Event)
		go func() {
			ctx, cancel := context.WithTimeout(s.t.Context(), patience)
			defer cancel()
			events, _, err := s.Events(ctx, lock.Pattern{}, revision, time.Hour)
			if err != nil {
				s.t.Errorf("Events(%d): %v", revision, err)
			}
			read <- events
		}()
		l := s.lock("a")
		if got := <-read; len(got) != 1 || got[0].Revision != l.Revision {
			s.t.Errorf("Events(%d): got %+v, want the event of revision %d", revision, got, l.Revision)
		}
		s.unlock("a")
	}
}

// testEventsAreVisible: what Events has told, Get and List show.
func testEventsAreVisible(s tested) {
	const rounds = 20
	var reading sync.WaitGroup
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	for range 4 {
		reading.Go(func() {
			for after := s.start; ; {
				events, _, err := s.Events(ctx, lock.Pattern{}, after, time.Hour)
				if err != nil {
					s.t.Errorf("Events(%d): %v", after, err)
					return
				}
				last := events[len(events)-1]
				after = last.Revision
				if got := s.get("a"); got.Held() && (got.Revision < after || got.Revision == after && last.Type == lock.Unlocked) {
					s.t.Errorf("after the event %+v, Get shows %+v", last, got)
				}
				if got := s.revision(); got < after {
					s.t.Errorf("after the event %+v, List is of revision %d", last, got)
				}
				if last.Reason == "the last" {
					return
				}
			}
		})
	}
	for round := range rounds {
		s.lock("a")
		s.unlock("a", func(c *lock.Change) {
			if round == rounds-1 {
				c.Reason = "the last"
			}
		})
	}
	reading.Wait()
}

func testEventsYetToCome(s tested) {
	s.lock("a")
	now := s.revision()
	for _, ahead := range []lock.Revision{1, 1000, 1 << 40} {
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		_, _, err := s.Events(ctx, lock.Pattern{}, now+ahead, time.Hour)
		cancel()
		var compacted *lock.CompactedError
		if !errors.As(err, &compacted) {
			s.t.Errorf("Events(%d): got error %v, want a CompactedError", now+ahead, err)
			continue
		}
		if compacted.Kept > now {
			s.t.Errorf("Events(%d): Kept is %d, above the present revision %d", now+ahead, compacted.Kept, now)
		}
		wantError(s.t, "a CompactedError", err, lock.ErrCompacted)
		// What it says is a place to go on from.
		s.commit(s.change(lock.Updated, "a"))
		ctx, cancel = context.WithTimeout(s.t.Context(), patience)
		if _, _, err := s.Events(ctx, lock.Pattern{}, compacted.Kept, time.Hour); err != nil {
			s.t.Errorf("Events(%d), which is Kept: %v", compacted.Kept, err)
		}
		cancel()
		s.unlock("a")
		s.lock("a")
		now = s.revision()
	}
}

func testClose(s tested) {
	const readers = 8
	s.lock("a")
	waiting := make(chan error, readers)
	revision := s.revision()
	for range readers {
		go func() {
			_, _, err := s.Events(s.t.Context(), lock.Pattern{}, revision, time.Hour)
			waiting <- err
		}()
	}
	var writing sync.WaitGroup
	for w := range 4 {
		name := lock.MustParseName(fmt.Sprintf("b%d", w))
		writing.Go(func() {
			// It may come before Close or after it, and knows which.
			_, err := s.Commit(s.t.Context(), []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: name}}})
			if err != nil {
				wantError(s.t, "Commit around Close", err, lock.ErrShuttingDown)
			}
		})
	}
	if err := s.Close(); err != nil {
		s.t.Errorf("Close: %v", err)
	}
	writing.Wait()
	for range readers {
		if err := <-waiting; err != nil { // nil: an event of the writers came first
			wantError(s.t, "a waiting Events at Close", err, lock.ErrShuttingDown)
		}
	}
	_, err := s.Get(s.t.Context(), lock.MustParseName("a"))
	wantError(s.t, "Get after Close", err, lock.ErrShuttingDown)
	_, err = s.Commit(s.t.Context(), []lock.Change{{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: lock.MustParseName("c")}}})
	wantError(s.t, "Commit after Close", err, lock.ErrShuttingDown)
	_, _, err = s.Events(s.t.Context(), lock.Pattern{}, s.start, time.Hour)
	wantError(s.t, "Events after Close", err, lock.ErrShuttingDown)
	_, err = s.Revision(s.t.Context())
	wantError(s.t, "Revision after Close", err, lock.ErrShuttingDown)
	_, locks := s.List(s.t.Context(), lock.Pattern{}, lock.Name{})
	err = nil
	for _, err = range locks {
		if err != nil {
			break
		}
	}
	wantError(s.t, "List after Close", err, lock.ErrShuttingDown)
}
