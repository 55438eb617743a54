package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
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

// TestNothingLeaks: while others take, change, break and release locks that it may not view,
// a caller asks by every RPC for all that there is. No byte that it gets, neither on the
// connection nor in an error, has the name, the data, the holder or the reason of one.
func TestNothingLeaks(t *testing.T) {
	file := accessFile(t, fmt.Sprintf(`
callers:
  - {name: root, token: "sha256:%x", groups: [root]}
  - {name: spy, token: "sha256:%x", groups: [spies]}
rules:
  - {who: ["group:root"], may: [lock, break, freeze, admin], locks: ["**"]}
  - {who: ["group:spies"], may: [lock, break, freeze], locks: ["public/**"]}
`, sha256.Sum256([]byte("pylok_root")), sha256.Sum256([]byte("pylok_spy"))))
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--access", file)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	asRoot := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer pylok_root")
	asSpy := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer pylok_spy")
	root := p.client(t, insecure.NewCredentials())
	got := &heard{}
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			return &heardConn{c, got}, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	spy := pylokv1.NewLockServiceClient(conn)

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
	// failed keeps what an error tells, which the wire has packed.
	failed := func(err error) {
		if err == nil {
			return
		}
		details, marshalErr := proto.Marshal(status.Convert(err).Proto())
		if marshalErr != nil {
			t.Fatal(marshalErr)
		}
		got.add(details)
		got.add([]byte(err.Error()))
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
	got.mu.Lock()
	defer got.mu.Unlock()
	text := got.bytes.Bytes()
	if !bytes.Contains(text, []byte("public/x-39")) {
		t.Error("the bytes do not have what may be viewed: is the test reading them?")
	}
	for _, secret := range secrets {
		// The refusals of the last requests repeat the name that they asked for; those are
		// in headers, which are packed, and not in what failed has kept.
		if i := bytes.Index(text, []byte(secret)); i >= 0 {
			t.Errorf("%q is in what the caller got: %q", secret, text[max(0, i-80):min(len(text), i+80)])
		}
	}
}
