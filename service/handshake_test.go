package service

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
)

// speak returns a client of a server with credentials of its own.
func (r *running) speak(t *testing.T, creds credentials.TransportCredentials) pylokv1.LockServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(r.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return pylokv1.NewLockServiceClient(conn)
}

// showing returns a client's side of TLS that shows a certificate, whatever the server
// asks for; nil: none.
func showing(authority *testcert.Authority, pair *testcert.Pair) *tls.Config {
	return &tls.Config{RootCAs: authority.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if pair == nil {
			return &tls.Certificate{}, nil
		}
		c := pair.TLS()
		return &c, nil
	}}
}

// TestHandshakesInTheLog: why clients cannot connect is in the log, once for each cause.
func TestHandshakesInTheLog(t *testing.T) {
	authority, other := testcert.New(t), testcert.New(t)
	config := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()}, ClientCAs: authority.Pool(), ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13}
		if change != nil {
			change(c)
		}
		return c
	}
	require := func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }
	for _, test := range []struct {
		name   string
		server *tls.Config
		client *tls.Config // nil: plaintext
		want   string
		also   []string
	}{
		{"plaintext", config(nil), nil, plaintextToTLS, nil},
		{"TLS", nil, showing(authority, nil), tlsToPlaintext, nil},
		{"another authority's", config(nil), showing(authority, other.Client(testcert.Options{URIs: []string{"spiffe://corp/deploy"}})), badCertificate, []string{"spiffe://corp/deploy", "unknown authority", "127.0.0.1"}},
		{"ended", config(nil), showing(authority, authority.Client(testcert.Options{CommonName: "ci", NotAfter: time.Now().Add(-time.Second)})), badCertificate, []string{"CN=ci", "expired"}},
		{"a server's", config(nil), showing(authority, authority.Server(testcert.Options{DNS: []string{"web.example.com"}})), badCertificate, []string{"web.example.com", "usage"}},
		{"a long name", config(nil), showing(authority, other.Client(testcert.Options{CommonName: strings.Repeat("x", 5000) + "END"})), badCertificate, []string{"xxx"}},
		{"none", config(require), showing(authority, nil), noCertificate, nil},
		{"no trust", config(nil), showing(other, nil), notTrusted, []string{"bad certificate"}},
		{"old", config(nil), &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS12}, oldTLS, nil},
		{"the server's has ended", config(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{authority.Server(testcert.Options{NotAfter: time.Now().Add(-time.Second)}).TLS()}
		}), showing(authority, nil), notTrusted, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, setup{server: ServerConfig{TLS: test.server}})
			creds := insecure.NewCredentials()
			if test.client != nil {
				creds = credentials.NewTLS(test.client)
			}
			for range 4 {
				if _, err := r.speak(t, creds).Info(t.Context(), &pylokv1.InfoRequest{}); status.Code(err) != codes.Unavailable {
					t.Errorf("the client has %v, want it refused", err)
				}
			}
			lines := r.log.lines(t, 1, test.want)
			text := fmt.Sprint(lines)
			for _, part := range test.also {
				if !strings.Contains(text, part) {
					t.Errorf("the log says %s; want %q in it", text, part)
				}
			}
			if len(lines) != 1 || len(text) > 1500 || strings.Contains(text, "END") {
				t.Errorf("the log says, in %d lines, %s", len(lines), text)
			}
			if all := r.log.lines(t, 1, `"level":"WARN"`); len(all) != 1 {
				t.Errorf("for one cause the log warns of %v", all)
			}
		})
	}
}

// TestTroublesAreCounted: a cause is logged at once and then with its count.
func TestTroublesAreCounted(t *testing.T) {
	var troubles troubles
	now := time.Now()
	var counts []int
	for i := range 181 {
		if count, log := troubles.add("a", now.Add(time.Duration(i)*time.Second)); log {
			counts = append(counts, count)
		}
	}
	if got := fmt.Sprint(counts); got != "[1 60 60 60]" {
		t.Errorf("181 of them in 3 minutes are logged as %v", got)
	}
	if count, log := troubles.add("b", now); !log || count != 1 {
		t.Error("the first of another cause is not logged")
	}
}

// TestHTTP1 has clients speak HTTP/1 to the server: they get a text, and the log a line.
func TestHTTP1(t *testing.T) {
	authority := testcert.New(t)
	withTLS := &tls.Config{Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()}}
	for _, test := range []struct {
		name   string
		server *tls.Config
		scheme string
		want   string // of the answer; empty: an error
		logged string
	}{
		{"plaintext", nil, "http", "port for gRPC, which is HTTP/2", notHTTP2},
		{"plaintext to TLS", withTLS, "http", "it speaks TLS", plaintextToTLS},
		{"TLS", withTLS, "https", "", notHTTP2},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := serve(t, setup{server: ServerConfig{TLS: test.server}})
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), NextProtos: []string{"http/1.1"}}}}
			defer client.CloseIdleConnections()
			for _, method := range []string{"GET", "POST", "LOCK"} {
				request, err := http.NewRequestWithContext(t.Context(), method, test.scheme+"://"+r.address+"/state", strings.NewReader(strings.Repeat("x", 100_000)))
				if err != nil {
					t.Fatal(err)
				}
				response, err := client.Do(request)
				if test.want == "" {
					if err == nil {
						t.Errorf("%s: got %v, want an error", method, response)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", method, err)
					continue
				}
				text, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), test.want) {
					t.Errorf("%s: got %v, %q and %v; want 400 and %q", method, response.Status, text, err, test.want)
				}
			}
			if lines := r.log.lines(t, 1, test.logged); len(lines) != 1 {
				t.Errorf("the log says %v", lines)
			}
			if all := r.log.lines(t, 1, `"level":"WARN"`); len(all) != 1 {
				t.Errorf("for one cause the log warns of %v", all)
			}
		})
	}
}

// TestHTTP1AnswerArrives has a client read the answer when the server has closed the
// connection, with a request that is longer than what the server looks at.
func TestHTTP1AnswerArrives(t *testing.T) {
	r := serve(t, setup{})
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("POST / HTTP/1.1\r\n" + strings.Repeat("x", 100_000))); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r.log.lines(t, 1, notHTTP2)
	all := &r.server.connections
	for open := 1; open > 0; {
		all.mu.Lock()
		open = len(all.open)
		all.mu.Unlock()
		runtime.Gosched()
	}
	if text, err := io.ReadAll(conn); err != nil || !strings.Contains(string(text), "400 Bad Request") {
		t.Errorf("the client reads %q and %v", text, err)
	}
}

// TestOtherClientCA: when another authority vouches for clients than when they connected,
// those of the one before are cut off, at once, and nobody else.
func TestOtherClientCA(t *testing.T) {
	authority, next := testcert.New(t), testcert.New(t)
	both := authority.Pool()
	both.AddCert(next.Certificate)
	var clientCAs atomic.Pointer[x509.CertPool]
	clientCAs.Store(both)
	config := func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clientCAs.Load()}
	}
	r := serve(t, setup{server: ServerConfig{TLS: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config(), nil }}}})
	watch := func(pair *testcert.Pair) (pylokv1.LockServiceClient, pylokv1.LockService_WatchClient) {
		t.Helper()
		client := r.speak(t, credentials.NewTLS(showing(authority, pair)))
		stream, err := client.Watch(t.Context(), &pylokv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // RESET and SYNCED
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		return client, stream
	}
	old := authority.Client(testcert.Options{CommonName: "old"})
	oldClient, oldWatch := watch(old)
	newClient, newWatch := watch(next.Client(testcert.Options{CommonName: "new"}))
	_, noneWatch := watch(nil)

	r.server.VerifyClients(both)
	clientCAs.Store(next.Pool())
	r.server.VerifyClients(next.Pool())
	for {
		_, err := oldWatch.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("the watch of the old authority's client ended with %v", err)
		}
		break
	}
	if _, err := oldClient.Info(t.Context(), &pylokv1.InfoRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("the old authority's client gets %v, want it refused", err)
	}
	if _, err := newClient.Lock(t.Context(), &pylokv1.LockRequest{Name: "a", Holder: "new"}); err != nil {
		t.Error(err)
	}
	for name, stream := range map[string]pylokv1.LockService_WatchClient{"the new authority's": newWatch, "no": noneWatch} {
		for {
			response, err := stream.Recv()
			if err != nil {
				t.Fatalf("the watch of the client with %s certificate: %v", name, err)
			}
			if response.GetEvent().GetLock().GetName() == "a" {
				break
			}
		}
	}
	r.log.lines(t, 1, "the client CA is another since it connected")

	// A handshake that began before and is over now.
	late := &connection{all: &r.server.connections}
	if err := r.server.connections.certify(late, []*x509.Certificate{old.Certificate}); err == nil {
		t.Error("a client of the old authority is let in")
	}
	if err := r.server.connections.certify(late, nil); err != nil {
		t.Error(err)
	}
}

// TestAlertArrives refuses a client's certificate, when the client has sent what follows
// its handshake: it reads why nevertheless.
func TestAlertArrives(t *testing.T) {
	authority, other := testcert.New(t), testcert.New(t)
	r := serve(t, setup{server: ServerConfig{TLS: &tls.Config{Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()}, ClientCAs: authority.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}}})
	for range 20 {
		config := showing(authority, other.Client(testcert.Options{}))
		config.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", r.address, config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(strings.Repeat("x", 10_000))); err != nil {
			t.Errorf("writing: %v", err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if _, err := io.ReadAll(conn); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("the client reads %v, want an alert", err)
		}
		conn.Close()
	}
}
