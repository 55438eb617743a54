package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// heardConn keeps all bytes that come in on a connection.
type heardConn struct {
	net.Conn
	heard *heard
}

type heard struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

// Read implements net.Conn.
func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard.add(b[:n])
	return n, err
}

func (h *heard) add(b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bytes.Write(b)
}

// spied is a server with a caller root, who may do everything, and a caller spy, who may
// something in public and a little in open.
type spied struct {
	t             *testing.T
	root, spy     pylokv1.LockServiceClient
	asRoot, asSpy context.Context
	got           *heard // all that comes to spy
}

func newSpied(t *testing.T) *spied {
	t.Helper()
	file := accessFile(t, fmt.Sprintf(`
callers:
  - {name: root, token: "sha256:%x", groups: [root]}
  - {name: spy, token: "sha256:%x", groups: [spies]}
rules:
  - {who: ["group:root"], may: [lock, break, freeze, admin], locks: ["**"]}
  - {who: ["group:spies"], may: [lock, break, freeze], locks: ["public/**"]}
  - {who: ["group:spies"], may: [lock, break], locks: ["open/**"]}
`, sha256.Sum256([]byte("pylok_root")), sha256.Sum256([]byte("pylok_spy"))))
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--access", file)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	t.Cleanup(cancel)
	s := &spied{t: t, got: &heard{}}
	s.asRoot = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer pylok_root")
	s.asSpy = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer pylok_spy")
	s.root = p.client(t, insecure.NewCredentials())
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			return &heardConn{c, s.got}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s.spy = pylokv1.NewLockServiceClient(conn)
	return s
}

// failed keeps what an error tells, which the wire has packed.
func (s *spied) failed(err error) {
	if err == nil {
		return
	}
	details, marshalErr := proto.Marshal(status.Convert(err).Proto())
	if marshalErr != nil {
		s.t.Error(marshalErr)
	}
	s.got.add(details)
	s.got.add([]byte(err.Error()))
}

// check looks for secrets in what has come to spy, and for something that should be there.
func (s *spied) check(public string, secrets ...string) {
	s.t.Helper()
	s.got.mu.Lock()
	defer s.got.mu.Unlock()
	text := s.got.bytes.Bytes()
	if !bytes.Contains(text, []byte(public)) {
		s.t.Error("the bytes do not have what may be viewed: is the test reading them?")
	}
	for _, secret := range secrets {
		if i := bytes.Index(text, []byte(secret)); i >= 0 {
			s.t.Errorf("%q is in what the caller got: %q", secret, text[max(0, i-80):min(len(text), i+80)])
		}
	}
}

// TestNothingLeaks: while others take, change, break and release locks that it may not view,
// a caller asks by every RPC for all that there is. No byte that it gets, neither on the
// connection nor in an error, has the name, the data, the holder or the reason of one.
func TestNothingLeaks(t *testing.T) {
	s := newSpied(t)
	root, spy, asRoot, asSpy, failed := s.root, s.spy, s.asRoot, s.asSpy, s.failed

	const name, data, holder, reason, id = "q7hidden/name", "q7data", "q7holder", "q7reason", "q7id"
	secrets := []string{"q7hidden", data, holder, reason, id}
	document, err := structpb.NewStruct(map[string]any{"msg": data})
	if err != nil {
		t.Fatal(err)
	}
	round := func(i int) {
		t.Helper()
		for _, name := range []string{fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("public/x-%d", i)} {
			public := strings.HasPrefix(name, "public/")
			request := &pylokv1.LockRequest{Name: name, Holder: "somebody"}
			if !public {
				request.Data, request.Holder, request.RequestId = document, holder, id
			}
			held, err := root.Lock(asRoot, request)
			if err == nil && !public {
				_, err = root.Renew(asRoot, &pylokv1.RenewRequest{Name: name, Token: held.Lock.Token, Data: document, Expiry: &pylokv1.RenewRequest_Ttl{Ttl: durationpb.New(1e12)}})
			}
			if err == nil && i%2 == 0 {
				unlock := &pylokv1.UnlockRequest{Name: name, Force: true, Reason: "public"}
				if !public {
					unlock.Reason = reason
				}
				_, err = root.Unlock(asRoot, unlock)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 20 {
		round(i)
	}
	var watches sync.WaitGroup
	var watching sync.WaitGroup
	watched, endWatches := context.WithCancel(asSpy)
	patterns := []string{"", "**", "*/*", "q*/**", "**/name*", "*7*/**", "public/**"}
	public := make(chan string, 1000)
	for _, pattern := range patterns {
		for _, after := range []uint64{0, 1, 5, 1 << 40} {
			watching.Add(1)
			watches.Go(func() {
				stream, err := spy.Watch(watched, &pylokv1.WatchRequest{Pattern: pattern, AfterRevision: after})
				for synced := false; err == nil; {
					var response *pylokv1.WatchResponse
					response, err = stream.Recv()
					if !synced && (err != nil || response.Event.Type == pylokv1.EventType_EVENT_TYPE_SYNCED) {
						synced = true
						watching.Done()
					}
					if err == nil && pattern == "**" && after == 0 {
						public <- response.Event.Lock.GetName()
					}
				}
				failed(err)
			})
		}
	}
	watching.Wait()
	for i := 20; i < 40; i++ {
		round(i)
		for _, pattern := range patterns {
			list := &pylokv1.ListRequest{Pattern: pattern, PageSize: 3}
			for more := true; more; more = list.PageToken != "" {
				page, err := spy.List(asSpy, list)
				failed(err)
				list.PageToken = page.GetNextPageToken()
			}
			for _, newest := range []bool{false, true} {
				for _, actor := range []string{"", "token:root"} {
					past := &pylokv1.HistoryRequest{Pattern: pattern, PageSize: 5, NewestFirst: newest, Actor: actor}
					for more := true; more; more = past.PageToken != "" {
						page, err := spy.History(asSpy, past)
						failed(err)
						past.PageToken = page.GetNextPageToken()
					}
				}
			}
		}
		// A name that is held, without its text in the request's answer: all of these
		// are refused by the pattern of the rules, or are about a name that is free.
		for _, guess := range []string{"public/free", fmt.Sprintf("public/x-%d", i)} {
			_, err := spy.Status(asSpy, &pylokv1.StatusRequest{Name: guess})
			failed(err)
			_, err = spy.Lock(asSpy, &pylokv1.LockRequest{Name: guess, RequestId: id, Wait: durationpb.New(1e6)})
			failed(err)
		}
		_, err := spy.Info(asSpy, &pylokv1.InfoRequest{})
		failed(err)
	}
	// The names themselves: what comes back has the name that was asked for, and nothing else.
	held := fmt.Sprintf("%s-39", name)
	asks := []func() error{
		func() error { _, err := spy.Status(asSpy, &pylokv1.StatusRequest{Name: held}); return err },
		func() error { _, err := spy.List(asSpy, &pylokv1.ListRequest{Pattern: held}); return err },
		func() error { _, err := spy.History(asSpy, &pylokv1.HistoryRequest{Pattern: held}); return err },
		func() error {
			_, err := spy.Lock(asSpy, &pylokv1.LockRequest{Name: held, RequestId: id, Wait: durationpb.New(1e9)})
			return err
		},
		func() error {
			_, err := spy.Lock(asSpy, &pylokv1.LockRequest{Name: held, Holder: holder, Overwrite: true})
			return err
		},
		func() error {
			_, err := spy.Unlock(asSpy, &pylokv1.UnlockRequest{Name: held, Holder: holder})
			return err
		},
		func() error {
			_, err := spy.Unlock(asSpy, &pylokv1.UnlockRequest{Name: held, Force: true, Reason: "x"})
			return err
		},
		func() error { _, err := spy.Renew(asSpy, &pylokv1.RenewRequest{Name: held, Token: 3}); return err },
	}
	for i, ask := range asks {
		err := ask()
		if err == nil {
			t.Errorf("request %d about a lock that may not be viewed is answered", i)
		}
		for _, secret := range []string{data, reason, "is held", "is locked", "token 3"} {
			if text := fmt.Sprint(err, status.Convert(err).Details()); strings.Contains(text, secret) {
				t.Errorf("request %d tells %q: %s", i, secret, text)
			}
		}
	}
	seen := 0
	for len(public) > 0 {
		if strings.HasPrefix(<-public, "public/") {
			seen++
		}
	}
	if seen < 40 {
		t.Errorf("the watch saw %d events of what it may see, want 40 and more", seen)
	}
	endWatches()
	watches.Wait()
	// The refusals of the last requests repeat the name that they asked for; those are in
	// headers, which are packed, and not in what failed has kept.
	s.check("public/x-39", secrets...)
}

// TestNothingLeaksTogether: trees, sets, waiters and shared holds that a caller may not view
// stand in its way, before it and around what it has. It learns that there is something.
func TestNothingLeaksTogether(t *testing.T) {
	s := newSpied(t)
	const data, holder, reason = "q7data", "q7holder", "q7reason"
	document, err := structpb.NewStruct(map[string]any{"msg": data})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lock := func(as context.Context, client pylokv1.LockServiceClient, request *pylokv1.LockRequest) *pylokv1.Lock {
		t.Helper()
		response, err := client.Lock(as, request)
		must(err)
		return response.Lock
	}
	secretly := func(request *pylokv1.LockRequest) *pylokv1.LockRequest {
		request.Data, request.Holder, request.Reason = document, holder, reason
		return request
	}
	var waits sync.WaitGroup
	waiting, endWaits := context.WithCancel(s.asRoot)
	// later has root stand in the line of a lock.
	later := func(name string, ask func(context.Context) error) {
		t.Helper()
		waits.Go(func() { ask(waiting) })
		for {
			response, err := s.root.Status(s.asRoot, &pylokv1.StatusRequest{Name: name})
			must(err)
			if response.Lock.Waiters > 0 {
				return
			}
			runtime.Gosched()
		}
	}
	// probe asks for all that spy may ask about a lock, and reports whether it was refused.
	probe := func(what, name string) {
		t.Helper()
		for _, request := range []*pylokv1.LockRequest{
			{Name: name},
			{Name: name, Wait: durationpb.New(time.Millisecond)},
			{Name: name, Wait: durationpb.New(time.Second), RefuseManual: true},
			{Name: name, Shared: true},
			{Name: name, Overwrite: true, Holder: "x"},
			{Name: name, ReplaceStale: true, Reason: "x"},
		} {
			_, err := s.spy.Lock(s.asSpy, request)
			s.failed(err)
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%s: Lock(%v): %v, want a refusal", what, request, err)
			}
		}
		_, err := s.spy.LockSet(s.asSpy, &pylokv1.LockSetRequest{Names: []string{"public/free-for-a-set", name}})
		s.failed(err)
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: LockSet: %v, want a refusal", what, err)
		}
		found, err := s.spy.Status(s.asSpy, &pylokv1.StatusRequest{Name: name})
		must(err)
		if found.Lock.Waiters == 0 && found.Lock.BlockedBy == nil {
			t.Errorf("%s: Status is %v, want that something is there", what, found)
		}
		_, err = s.spy.Ask(s.asSpy, &pylokv1.AskRequest{Name: name, Message: "x"})
		s.failed(err)
		for _, pattern := range []string{"**", name} {
			_, err = s.spy.List(s.asSpy, &pylokv1.ListRequest{Pattern: pattern})
			must(err)
			_, err = s.spy.History(s.asSpy, &pylokv1.HistoryRequest{Pattern: pattern})
			must(err)
		}
	}

	tree := lock(s.asRoot, s.root, secretly(&pylokv1.LockRequest{Name: "open", Tree: true}))
	probe("a tree", "open/a")
	_, err = s.root.Unlock(s.asRoot, &pylokv1.UnlockRequest{Name: "open", Token: tree.Token, Reason: reason})
	must(err)
	tree = lock(s.asRoot, s.root, secretly(&pylokv1.LockRequest{Name: "_all", Tree: true}))
	probe("a tree of all", "public/a")
	_, err = s.root.Unlock(s.asRoot, &pylokv1.UnlockRequest{Name: "_all", Token: tree.Token, Reason: reason})
	must(err)

	// A set that waits for what spy has, and for something hidden.
	mine := lock(s.asSpy, s.spy, &pylokv1.LockRequest{Name: "public/mine", Holder: "spy"})
	later("public/mine", func(ctx context.Context) error {
		_, err := s.root.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"public/mine", "q7hidden/set"}, Holder: "seen", WaitForever: true})
		return err
	})
	probe("a set that waits", "public/mine")
	found, err := s.spy.Status(s.asSpy, &pylokv1.StatusRequest{Name: "public/mine"})
	must(err)
	if w := found.Lock.Waiting; len(w) != 1 || w[0].Holder != "seen" || len(w[0].Names) != 1 {
		t.Errorf("who waits for spy's hold is %v, want one with that name", w)
	}
	_, err = s.spy.RenewSet(s.asSpy, &pylokv1.RenewSetRequest{Holds: []*pylokv1.HoldRef{{Name: "public/mine", Token: mine.Token}}})
	s.failed(err)
	_, err = s.spy.Dismiss(s.asSpy, &pylokv1.DismissRequest{Name: "public/mine", Place: found.Lock.Waiting[0].Place, Reason: "x"})
	must(err)

	// A drain that is hidden stands before spy, who may lock below.
	lock(s.asSpy, s.spy, &pylokv1.LockRequest{Name: "open/mine"})
	waits.Go(func() {
		s.root.Lock(waiting, secretly(&pylokv1.LockRequest{Name: "open", Tree: true, Drain: true, WaitForever: true}))
	})
	for {
		found, err := s.spy.Status(s.asSpy, &pylokv1.StatusRequest{Name: "open/b"})
		must(err)
		if found.Lock.BlockedBy != nil {
			break
		}
	}
	probe("a drain", "open/b")

	// A set by its number: of a hidden one nothing is told, nor done.
	set, err := s.root.LockSet(s.asRoot, &pylokv1.LockSetRequest{Names: []string{"q7hidden/1", "q7hidden/2", "public/3"}, Data: document, Holder: holder})
	s.check("public/mine", data, holder, reason, "q7hidden")
	if err != nil {
		t.Fatal(err)
	}
	answers, err := s.spy.UnlockSet(s.asSpy, &pylokv1.UnlockSetRequest{Set: set.Locks[0].Set.Id, Force: true, Reason: "x"})
	must(err)
	if len(answers.Answers) != 1 || answers.Answers[0].Name != "public/3" || answers.Answers[0].Revision == 0 {
		t.Errorf("of a set of which it may break one: %v", answers)
	}
	if found, err := s.root.Status(s.asRoot, &pylokv1.StatusRequest{Name: "q7hidden/1"}); err != nil || found.Lock.Token == 0 {
		t.Errorf("what is hidden has been ended: %v, %v", found, err)
	}

	// What is asked of a holder is the holder's, though the token is known to all.
	theirs := lock(s.asRoot, s.root, &pylokv1.LockRequest{Name: "public/theirs"})
	watching, endWatch := context.WithCancel(s.asSpy)
	stream, err := s.spy.Watch(watching, &pylokv1.WatchRequest{Pattern: "public/theirs", Token: theirs.Token})
	must(err)
	told := make(chan pylokv1.EventType, 100)
	waits.Go(func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				close(told)
				return
			}
			told <- response.Event.Type
		}
	})
	for kind := range told {
		if kind == pylokv1.EventType_EVENT_TYPE_SYNCED {
			break
		}
	}
	asked, err := s.root.Ask(s.asRoot, &pylokv1.AskRequest{Name: "public/theirs", Message: "q7asked"})
	must(err)
	if asked.Heard {
		t.Error("who is not the holder hears what is asked of it")
	}
	endWatch()
	endWaits()
	waits.Wait()
	s.check("public/theirs", reason, "q7hidden", "q7asked")
}
