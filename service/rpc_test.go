package service

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/feed"
	"github.com/pylok/pylok/lock/memstore"
)

const (
	locked   = pylokv1.LockState_LOCK_STATE_LOCKED
	unlocked = pylokv1.LockState_LOCK_STATE_UNLOCKED
)

// TestOneHold follows one hold through every RPC.
func TestOneHold(t *testing.T) {
	r := serve(t, setup{})
	ctx := t.Context()
	data := document(t, `{"msg": "canary", "data": {"n": 1.5, "list": [null, true, "x", {}]}}`)

	free, err := r.Status(ctx, &pylokv1.StatusRequest{Name: "lb/web-1"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&pylokv1.Lock{Name: "lb/web-1", State: unlocked}); !proto.Equal(free.GetLock(), want) {
		t.Errorf("a free lock: got %v, want %v", free.GetLock(), want)
	}

	began := time.Now().Truncate(time.Millisecond)
	granted, err := r.Lock(ctx, &pylokv1.LockRequest{
		Name:   "lb/web-1",
		Data:   data,
		Holder: "alice@ci-7",
		Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if granted.GetQueued() != nil {
		t.Errorf("queued: got %v, want none", granted.GetQueued())
	}
	hold := granted.GetLock()
	if got := hold.GetAcquireTime().AsTime(); got.Before(began) || got.After(time.Now()) {
		t.Errorf("acquire_time: got %v, want it between %v and now", got, began)
	}
	if got, want := hold.GetExpireTime().AsTime(), hold.GetAcquireTime().AsTime().Add(time.Hour); got.Sub(want).Abs() > time.Second {
		t.Errorf("expire_time: got %v, want about %v", got, want)
	}
	want := &pylokv1.Lock{
		Name:             "lb/web-1",
		State:            locked,
		LockFileLocation: "/srv/locks/lb/web-1.lock",
		Data:             data,
		Holder:           "alice@ci-7",
		Token:            1,
		Revision:         1,
		AcquireTime:      hold.GetAcquireTime(),
		Ttl:              durationpb.New(time.Hour),
		ExpireTime:       hold.GetExpireTime(),
		OnExpiry:         pylokv1.OnExpiry_ON_EXPIRY_RELEASE,
	}
	if !proto.Equal(hold, want) {
		t.Errorf("the hold: got %v, want %v", hold, want)
	}

	extended, err := r.Renew(ctx, &pylokv1.RenewRequest{
		Name:   "lb/web-1",
		Token:  hold.GetToken(),
		Expiry: &pylokv1.RenewRequest_Ttl{Ttl: durationpb.New(2 * time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if l := extended.GetLock(); l.GetTtl().AsDuration() != 2*time.Hour || l.GetRevision() != 1 || !proto.Equal(l.GetData(), data) {
		t.Errorf("renewed without data: got %v, want a ttl of 2h, revision 1 and the same data", l)
	}
	cleared, err := r.Renew(ctx, &pylokv1.RenewRequest{Name: "lb/web-1", Token: hold.GetToken(), Data: document(t, `{}`)})
	if err != nil {
		t.Fatal(err)
	}
	if l := cleared.GetLock(); l.GetRevision() != 2 || l.GetToken() != 1 || len(l.GetData().GetFields()) != 0 {
		t.Errorf("renewed with empty data: got %v, want revision 2, token 1 and no data", l)
	}

	closing := document(t, `{"msg": "READY"}`)
	released, err := r.Unlock(ctx, &pylokv1.UnlockRequest{
		Name:   "lb/web-1",
		Token:  hold.GetToken(),
		Holder: "alice@ci-7",
		Reason: "canary complete",
		Data:   closing,
	})
	if err != nil {
		t.Fatal(err)
	}
	if l := released.GetLock(); released.GetRevision() != 3 || l.GetState() != locked || l.GetToken() != 1 || l.GetRevision() != 2 {
		t.Errorf("Unlock: got %v, want revision 3 and the hold as it was, locked at revision 2", released)
	}

	past, err := r.History(ctx, &pylokv1.HistoryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if past.GetNextPageToken() != "" {
		t.Errorf("next_page_token: got %q, want none", past.GetNextPageToken())
	}
	var told []string
	for _, e := range past.GetEvents() {
		told = append(told, fmt.Sprintf("%d %v %v %v by %s", e.GetRevision(), e.GetType(), e.GetCause(), e.GetLock().GetState(), e.GetActor()))
	}
	if want := []string{
		"1 EVENT_TYPE_LOCKED EVENT_CAUSE_REQUEST LOCK_STATE_LOCKED by alice@ci-7",
		"2 EVENT_TYPE_UPDATED EVENT_CAUSE_REQUEST LOCK_STATE_LOCKED by alice@ci-7",
		"3 EVENT_TYPE_UNLOCKED EVENT_CAUSE_REQUEST LOCK_STATE_UNLOCKED by alice@ci-7",
	}; !slices.Equal(told, want) {
		t.Errorf("the history: got %q, want %q", told, want)
	}
	last := past.GetEvents()[2]
	if l := last.GetLock(); last.GetReason() != "canary complete" || !proto.Equal(l.GetData(), closing) ||
		l.GetToken() != 1 || l.GetHolder() != "alice@ci-7" || l.GetAcquireTime() == nil ||
		l.GetLockFileLocation() != "" || l.GetExpireTime() != nil {
		t.Errorf("the last event: got %v", last)
	}
	first := past.GetEvents()[0]
	if got, want := first.GetLock().GetExpireTime().AsTime(), first.GetTime().AsTime().Add(time.Hour); !got.Equal(want) {
		t.Errorf("expire_time of the first event: got %v, want %v, its time plus the ttl", got, want)
	}

	info, err := r.Info(ctx, &pylokv1.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(info, &pylokv1.InfoResponse{
		Version:   "v0.0.0-test",
		Root:      testRoot,
		Store:     "memory",
		Revision:  3,
		StartTime: info.GetStartTime(),
		Features:  []string{"ask", "dismiss", "hand-over", "keep", "set", "shared", "tree"},
	}) || time.Since(info.GetStartTime().AsTime()) > time.Minute {
		t.Errorf("Info: got %v", info)
	}
}

func TestRequestReachesTheManager(t *testing.T) {
	r := serve(t, setup{})
	ctx := t.Context()

	expire := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	first := r.lock(t, &pylokv1.LockRequest{
		Name: "a", Holder: "h", RequestId: "id-1",
		Expiry: &pylokv1.LockRequest_ExpireTime{ExpireTime: timestamppb.New(expire)},
	})
	if got := first.GetExpireTime().AsTime(); !got.Equal(expire) || first.GetTtl() != nil {
		t.Errorf("expire_time: got %v and ttl %v, want %v and none", got, first.GetTtl(), expire)
	}
	if again := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "h", RequestId: "id-1"}); again.GetToken() != first.GetToken() {
		t.Errorf("the same request_id: got token %d, want %d", again.GetToken(), first.GetToken())
	}
	replaced := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "h", Overwrite: true})
	if replaced.GetToken() <= first.GetToken() {
		t.Errorf("overwrite: got token %d, want one above %d", replaced.GetToken(), first.GetToken())
	}
	broken, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "a", Holder: "boss", Force: true, Reason: "it hangs"})
	if err != nil {
		t.Fatal(err)
	}
	past, err := r.History(ctx, &pylokv1.HistoryRequest{AfterRevision: broken.GetRevision() - 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(past.GetEvents()); n != 1 {
		t.Fatalf("History after revision %d: got %d events, want 1", broken.GetRevision()-1, n)
	}
	if e := past.GetEvents()[0]; e.GetCause() != pylokv1.EventCause_EVENT_CAUSE_FORCED || e.GetActor() != "boss" {
		t.Errorf("a break: got %v", e)
	}
}

// TestWarnings: each warning is a sentence of its own, and events have none.
func TestWarnings(t *testing.T) {
	r := serve(t, setup{})
	s := New(nil, Config{})
	if got := s.lockMessage(lock.Lock{Token: 1, Warnings: "one\ntwo"}).GetWarnings(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("got the warnings %q", got)
	}
	l := r.lock(t, &pylokv1.LockRequest{Name: "a", Data: document(t, `{"expire": "soon"}`)})
	if got := l.GetWarnings(); len(got) != 1 || !strings.Contains(got[0], `"soon", is neither`) {
		t.Errorf("Lock: got the warnings %q", got)
	}
	past, err := r.History(t.Context(), &pylokv1.HistoryRequest{})
	if err != nil || len(past.GetEvents()) != 1 || past.GetEvents()[0].GetLock().GetWarnings() != nil {
		t.Errorf("History: got %v, %v; want no warnings", past, err)
	}
}

// TestWhoDidIt: a change has the actor that the request names, and of a hold that is
// broken the answer says who has the lock next.
func TestWhoDidIt(t *testing.T) {
	r := serve(t, setup{})
	ctx := t.Context()
	hold := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "alice"})
	data := document(t, `{"step": 2}`)
	for _, renewer := range []string{"bob", ""} {
		if _, err := r.Renew(ctx, &pylokv1.RenewRequest{Name: "a", Token: hold.GetToken(), Data: data, Holder: renewer}); err != nil {
			t.Fatal(err)
		}
	}
	granted := make(chan *pylokv1.Lock, 1)
	go func() {
		response, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Holder: "carol", Wait: durationpb.New(time.Minute)})
		if err != nil {
			t.Error(err)
		}
		granted <- response.GetLock()
	}()
	r.waiters(t, "a", 1)
	broken, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "a", Holder: "boss", Force: true, Reason: "it hangs"})
	if err != nil {
		t.Fatal(err)
	}
	if next := <-granted; broken.GetNext().GetHolder() != "carol" || broken.GetNext().GetToken() != next.GetToken() || broken.GetNext().GetState() != pylokv1.LockState_LOCK_STATE_LOCKED {
		t.Errorf("the hold that was broken is followed by %v, want %v", broken.GetNext(), next)
	}
	last, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "a", Holder: "carol"})
	if err != nil || last.GetNext() != nil {
		t.Errorf("the last Unlock: got %v, %v; want none next", last, err)
	}
	past, err := r.History(ctx, &pylokv1.HistoryRequest{Pattern: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range past.GetEvents() {
		got = append(got, fmt.Sprintf("%v by %s", e.GetType(), e.GetActor()))
	}
	want := []string{
		"EVENT_TYPE_LOCKED by alice", "EVENT_TYPE_UPDATED by bob", "EVENT_TYPE_UPDATED by alice",
		"EVENT_TYPE_UNLOCKED by boss", "EVENT_TYPE_LOCKED by carol", "EVENT_TYPE_UNLOCKED by carol",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the history:\n got %q\nwant %q", got, want)
	}
}

func TestWaitIsGranted(t *testing.T) {
	r := serve(t, setup{})
	first := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "first"})
	type answer struct {
		response *pylokv1.LockResponse
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		response, err := r.Lock(t.Context(), &pylokv1.LockRequest{Name: "a", Holder: "second", Wait: durationpb.New(time.Minute)})
		answered <- answer{response, err}
	}()
	r.waiters(t, "a", 1)
	if _, err := r.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "a", Token: first.GetToken()}); err != nil {
		t.Fatal(err)
	}
	got := <-answered
	if got.err != nil {
		t.Fatal(got.err)
	}
	if l := got.response.GetLock(); l.GetHolder() != "second" || l.GetToken() <= first.GetToken() {
		t.Errorf("got %v, want second's hold with a token above %d", l, first.GetToken())
	}
	if got.response.GetQueued().AsDuration() <= 0 {
		t.Errorf("queued: got %v, want how long it waited", got.response.GetQueued())
	}
}

func TestWaiterThatCancelsIsNotGranted(t *testing.T) {
	r := serve(t, setup{})
	first := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "first"})
	ctx, cancel := contextOf(t)
	ended := make(chan error, 1)
	go func() {
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Holder: "second", Wait: durationpb.New(time.Minute)})
		ended <- err
	}()
	r.waiters(t, "a", 1)
	cancel()
	refusedCode(t, <-ended, codes.Canceled)
	r.waiters(t, "a", 0)
	if _, err := r.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "a", Token: first.GetToken()}); err != nil {
		t.Fatal(err)
	}
	response, err := r.Status(t.Context(), &pylokv1.StatusRequest{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if response.GetLock().GetState() != unlocked {
		t.Errorf("got %v, want it free", response.GetLock())
	}
	if line := r.log.lines(t, 1, `"code":"Canceled"`)[0]; line["holder"] != "second" || line["level"] != "INFO" {
		t.Errorf("the log: got %v", line)
	}
}

func TestListPages(t *testing.T) {
	r := serve(t, setup{})
	ctx := t.Context()
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("lb/web-%d", i)
		want = append(want, name)
		r.lock(t, &pylokv1.LockRequest{Name: name})
		r.lock(t, &pylokv1.LockRequest{Name: fmt.Sprintf("db/%d", i)})
	}
	var got, tokens []string
	for token := ""; ; {
		page, err := r.List(ctx, &pylokv1.ListRequest{Pattern: "lb/*", PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if page.GetRevision() != 14 {
			t.Errorf("revision: got %d, want 14", page.GetRevision())
		}
		for _, l := range page.GetLocks() {
			got = append(got, l.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
		tokens = append(tokens, token)
	}
	if !slices.Equal(got, want) || len(tokens) != 2 {
		t.Errorf("got %q in %d pages, want %q in 3", got, len(tokens)+1, want)
	}

	exact, err := r.List(ctx, &pylokv1.ListRequest{PageSize: 14})
	if err != nil {
		t.Fatal(err)
	}
	if len(exact.GetLocks()) != 14 || exact.GetNextPageToken() != "" {
		t.Errorf("a page that holds all: got %d locks and next_page_token %q, want 14 and none", len(exact.GetLocks()), exact.GetNextPageToken())
	}
	for _, bad := range []*pylokv1.ListRequest{
		{Pattern: "db/*", PageToken: tokens[0]},
		{Pattern: "lb/*", PageToken: tokens[0][1:]},
		{Pattern: "lb/*", PageToken: "web-3"},
		{Pattern: "lb/*", PageToken: tokens[0] + "="},
		{Pattern: "lb/*", PageToken: "\n" + tokens[0]},
	} {
		_, err := r.List(ctx, bad)
		d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument)
		if d.violation.GetField() != "page_token" {
			t.Errorf("%v: got field %q, want page_token", bad, d.violation.GetField())
		}
	}
}

func TestPageSizes(t *testing.T) {
	for _, test := range []struct {
		asked int32
		want  int
	}{{0, 100}, {1, 1}, {1000, 1000}, {1001, 1000}, {1<<31 - 1, 1000}} {
		if got, err := pageSize(test.asked); got != test.want || err != nil {
			t.Errorf("pageSize(%d): got %d, %v, want %d", test.asked, got, err, test.want)
		}
	}
}

func TestHistoryPages(t *testing.T) {
	r := serve(t, setup{})
	ctx := t.Context()
	for range 3 {
		for _, name := range []string{"a", "b"} {
			l := r.lock(t, &pylokv1.LockRequest{Name: name})
			if _, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: l.GetToken()}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []uint64
	var token string
	for {
		page, err := r.History(ctx, &pylokv1.HistoryRequest{Pattern: "a", AfterRevision: 1, PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEvents() {
			got = append(got, e.GetRevision())
		}
		if page.GetNextPageToken() == "" {
			break
		}
		token = page.GetNextPageToken()
	}
	if want := []uint64{2, 5, 6, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("got revisions %v, want %v", got, want)
	}
	filters := []*pylokv1.HistoryRequest{
		{Pattern: "a", AfterRevision: 1},
		{Pattern: "a", AfterRevision: 2},
		{Pattern: "b", AfterRevision: 1},
		{Pattern: "a", AfterRevision: 1, NewestFirst: true},
		{Pattern: "a", AfterRevision: 1, Actor: "x"},
		{Pattern: "a", AfterRevision: 1, Actor: "x\" 7"},
		{Pattern: "a", AfterRevision: 1, Cause: pylokv1.EventCause_EVENT_CAUSE_REQUEST},
		{Pattern: "a", AfterRevision: 1, AfterTime: timestamppb.New(time.Unix(7, 0))},
		{Pattern: "a", AfterRevision: 1, BeforeTime: timestamppb.New(time.Unix(7, 0))},
		{Pattern: "a", AfterRevision: 1, BeforeTime: timestamppb.New(time.Unix(7, 1))},
	}
	for i, filter := range filters {
		query, err := historyQuery(filter)
		if err != nil {
			t.Fatal(err)
		}
		token := historySequence(query).afterRevision(5)
		for j, other := range append(filters, &pylokv1.HistoryRequest{Pattern: "a", AfterRevision: 1, PageToken: "AAAA"}) {
			other = proto.CloneOf(other)
			if other.PageToken == "" {
				other.PageToken = token
			}
			_, err := r.History(ctx, other)
			if i == j {
				if err != nil {
					t.Errorf("%v: %v", other, err)
				}
				continue
			}
			if d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument); d.violation.GetField() != "page_token" {
				t.Errorf("%v: got field %q, want page_token", other, d.violation.GetField())
			}
		}
	}
}

// TestHistoryFilters asks for the past by each filter, in pages of one.
func TestHistoryFilters(t *testing.T) {
	r := serve(t, setup{})
	ctx := t.Context()
	a := r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "alice"})                                                         // 1
	r.lock(t, &pylokv1.LockRequest{Name: "b", Holder: "bob"})                                                                // 2
	if _, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "a", Holder: "boss", Force: true, Reason: "gone"}); err != nil { // 3
		t.Fatal(err)
	}
	r.lock(t, &pylokv1.LockRequest{Name: "a", Holder: "bob"}) // 4
	for _, test := range []struct {
		request *pylokv1.HistoryRequest
		want    []uint64
	}{
		{&pylokv1.HistoryRequest{}, []uint64{1, 2, 3, 4}},
		{&pylokv1.HistoryRequest{NewestFirst: true}, []uint64{4, 3, 2, 1}},
		{&pylokv1.HistoryRequest{NewestFirst: true, AfterRevision: 2}, []uint64{4, 3}},
		{&pylokv1.HistoryRequest{NewestFirst: true, Pattern: "a"}, []uint64{4, 3, 1}},
		{&pylokv1.HistoryRequest{Actor: "bob"}, []uint64{2, 4}},
		{&pylokv1.HistoryRequest{Cause: pylokv1.EventCause_EVENT_CAUSE_FORCED}, []uint64{3}},
		{&pylokv1.HistoryRequest{AfterTime: a.GetAcquireTime()}, []uint64{1, 2, 3, 4}},
		{&pylokv1.HistoryRequest{BeforeTime: a.GetAcquireTime()}, nil},
		{&pylokv1.HistoryRequest{AfterTime: timestamppb.New(time.Now().Add(time.Hour))}, nil},
	} {
		var got []uint64
		request := proto.CloneOf(test.request)
		for request.PageSize = 1; ; {
			page, err := r.History(ctx, request)
			if err != nil {
				t.Fatalf("%v: %v", request, err)
			}
			for _, e := range page.GetEvents() {
				got = append(got, e.GetRevision())
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				break
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%v: got revisions %v, want %v", test.request, got, test.want)
		}
	}
}

// TestPagesFitInAMessage: a client takes 4 MiB, whatever the locks hold.
func TestPagesFitInAMessage(t *testing.T) {
	r := serve(t, setup{})
	big := document(t, fmt.Sprintf(`{"text": %q}`, strings.Repeat("x", 60<<10)))
	const locks = 100
	for i := range locks {
		r.lock(t, &pylokv1.LockRequest{Name: fmt.Sprintf("big/%d", i), Data: big})
	}
	listed, pages := 0, 0
	for token := ""; pages == 0 || token != ""; pages++ {
		page, err := r.List(t.Context(), &pylokv1.ListRequest{PageSize: locks, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		listed += len(page.GetLocks())
		token = page.GetNextPageToken()
	}
	if listed != locks || pages < 3 {
		t.Errorf("List: got %d locks in %d pages, want %d in 3 or more", listed, pages, locks)
	}
	told, pages := 0, 0
	for token := ""; pages == 0 || token != ""; pages++ {
		page, err := r.History(t.Context(), &pylokv1.HistoryRequest{PageSize: locks, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		told += len(page.GetEvents())
		token = page.GetNextPageToken()
	}
	if told != locks || pages < 3 {
		t.Errorf("History: got %d events in %d pages, want %d in 3 or more", told, pages, locks)
	}
}

// told is a short form of an event.
func told(events []*pylokv1.Event) []string {
	var texts []string
	for _, e := range events {
		text := strings.TrimPrefix(e.GetType().String(), "EVENT_TYPE_")
		if e.GetRevision() != 0 {
			text += fmt.Sprint(" ", e.GetRevision())
		}
		if e.GetLock() != nil {
			text += " " + e.GetLock().GetName()
		}
		texts = append(texts, text)
	}
	return texts
}

func TestWatchFromZero(t *testing.T) {
	r := serve(t, setup{})
	r.lock(t, &pylokv1.LockRequest{Name: "a/1"})
	r.lock(t, &pylokv1.LockRequest{Name: "b/1"})
	r.lock(t, &pylokv1.LockRequest{Name: "a/2"})
	stream := r.watch(t, &pylokv1.WatchRequest{Pattern: "a/*"})
	got := next(t, stream, 4)
	if want := []string{"RESET", "LOCKED 1 a/1", "LOCKED 3 a/2", "SYNCED 3"}; !slices.Equal(told(got), want) {
		t.Errorf("got %q, want %q", told(got), want)
	}
	if !proto.Equal(got[0], &pylokv1.Event{Type: pylokv1.EventType_EVENT_TYPE_RESET, Time: got[0].GetTime()}) {
		t.Errorf("RESET: got %v, want only type and time", got[0])
	}
	if !proto.Equal(got[3], &pylokv1.Event{Type: pylokv1.EventType_EVENT_TYPE_SYNCED, Time: got[3].GetTime(), Revision: 3}) {
		t.Errorf("SYNCED: got %v, want only type, time and revision", got[3])
	}
	if _, err := r.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "b/1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "a/1"}); err != nil {
		t.Fatal(err)
	}
	if got, want := told(next(t, stream, 1)), []string{"UNLOCKED 5 a/1"}; !slices.Equal(got, want) {
		t.Errorf("then: got %q, want %q", got, want)
	}
}

func TestWatchAfterARevision(t *testing.T) {
	r := serve(t, setup{store: memstore.New(memstore.Config{Feed: feed.Config{Events: 4}})})
	for i := range 6 {
		r.lock(t, &pylokv1.LockRequest{Name: fmt.Sprintf("a/%d", i)})
	}
	recent := r.watch(t, &pylokv1.WatchRequest{AfterRevision: 4})
	if got, want := told(next(t, recent, 3)), []string{"LOCKED 5 a/4", "LOCKED 6 a/5", "SYNCED 6"}; !slices.Equal(got, want) {
		t.Errorf("after 4: got %q, want %q", got, want)
	}
	old := r.watch(t, &pylokv1.WatchRequest{AfterRevision: 1, Pattern: "a/0"})
	if got, want := told(next(t, old, 3)), []string{"RESET", "LOCKED 1 a/0", "SYNCED 6"}; !slices.Equal(got, want) {
		t.Errorf("after 1, which is not kept: got %q, want %q", got, want)
	}
}

// TestSlowWatch: a client that does not read keeps nobody else, and gets all in the
// end.
func TestSlowWatch(t *testing.T) {
	const changes = 200
	r := serve(t, setup{})
	slow := r.watch(t, &pylokv1.WatchRequest{})
	next(t, slow, 2)
	quick := r.watch(t, &pylokv1.WatchRequest{})
	next(t, quick, 2)
	big := document(t, fmt.Sprintf(`{"text": %q}`, strings.Repeat("x", 16<<10))) // 3 MiB in all
	for i := range changes {
		r.lock(t, &pylokv1.LockRequest{Name: fmt.Sprintf("a/%d", i), Data: big})
		if got := next(t, quick, 1)[0].GetRevision(); got != uint64(i+1) {
			t.Fatalf("the quick stream: got revision %d, want %d", got, i+1)
		}
	}
	for i, e := range next(t, slow, changes) {
		if e.GetRevision() != uint64(i+1) {
			t.Fatalf("the slow stream: got revision %d, want %d", e.GetRevision(), i+1)
		}
	}
}
