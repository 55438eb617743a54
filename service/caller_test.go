package service

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/access/bearer"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// serveFor serves on listeners for callers whom an access file tells apart; empty: there
// is none.
func serveFor(t *testing.T, accessFile string, config ServerConfig, listeners ...net.Listener) {
	t.Helper()
	file := ""
	if accessFile != "" {
		file = filepath.Join(t.TempDir(), "access.yaml")
		if err := os.WriteFile(file, []byte(accessFile), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	control, err := access.NewControl(access.Config{File: file})
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New(memstore.Config{})
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	config.Identify = control.Identify
	server := NewServer(New(m, Config{}), config)
	for _, listener := range listeners {
		go server.Serve(listener)
	}
	t.Cleanup(func() {
		m.Close()
		server.Stop(0)
		store.Close()
	})
}

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// TestCallers asks the server who asks, over each kind of connection, with and without an
// access file and a token.
func TestCallers(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	token, hash := bearer.New()
	file := `
callers:
  - {unix: {user: "` + me.Uid + `"}, groups: [here, all]}
  - {unix: {}, groups: [all]}
  - {name: ci, token: "` + hash + `", groups: [ci]}
  - {name: old, token: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", expires: 2020-01-01}
  - {certificate: {uri: "spiffe://corp/deploy/*"}, groups: [deployers]}
rules: []
`
	authority := testcert.New(t)
	serverTLS := &tls.Config{
		Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    authority.Pool(),
	}
	clientTLS := func(certificates ...tls.Certificate) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: authority.Pool(), Certificates: certificates})
	}
	spiffe := authority.Client(testcert.Options{CommonName: "web", URIs: []string{"spiffe://corp/deploy/web"}}).TLS()
	named := authority.Client(testcert.Options{CommonName: "web"}).TLS()
	for _, test := range []struct {
		what      string
		access    string
		network   string
		server    *tls.Config
		transport credentials.TransportCredentials
		bearer    string
		headers   []string // of authorization, beside the bearer's
		want      *pylokv1.InfoResponse
		code      codes.Code
	}{
		{what: "socket, no file", network: "unix", want: &pylokv1.InfoResponse{Caller: "unix:" + me.Username, Proof: "socket"}},
		{what: "TCP, no file", network: "tcp", want: &pylokv1.InfoResponse{}},
		{what: "certificate, no file", network: "tcp", server: serverTLS, transport: clientTLS(named), want: &pylokv1.InfoResponse{Caller: "cert:web", Proof: "certificate"}},
		{what: "token, no file", network: "unix", bearer: token, code: codes.Unauthenticated},
		{what: "socket", access: file, network: "unix", want: &pylokv1.InfoResponse{Caller: "unix:" + me.Username, Proof: "socket", Groups: []string{"all", "here"}}},
		{what: "TCP", access: file, network: "tcp", want: &pylokv1.InfoResponse{Caller: "anonymous"}},
		{what: "TLS", access: file, network: "tcp", server: serverTLS, transport: clientTLS(), want: &pylokv1.InfoResponse{Caller: "anonymous"}},
		{what: "SPIFFE", access: file, network: "tcp", server: serverTLS, transport: clientTLS(spiffe), want: &pylokv1.InfoResponse{Caller: "cert:spiffe://corp/deploy/web", Proof: "certificate", Groups: []string{"deployers"}}},
		{what: "token over a socket", access: file, network: "unix", bearer: token, want: &pylokv1.InfoResponse{Caller: "token:ci", Proof: "token", Groups: []string{"ci"}}},
		{what: "token over a certificate", access: file, network: "tcp", server: serverTLS, transport: clientTLS(spiffe), bearer: token, want: &pylokv1.InfoResponse{Caller: "token:ci", Proof: "token", Groups: []string{"ci"}}},
		{what: "wrong token over a socket", access: file, network: "unix", bearer: token + "x", code: codes.Unauthenticated},
		{what: "old token", access: file, network: "unix", bearer: "test", code: codes.Unauthenticated},
		{what: "empty token", access: file, network: "unix", headers: []string{"Bearer "}, code: codes.Unauthenticated},
		{what: "empty token, no file", network: "tcp", headers: []string{"Bearer"}, code: codes.Unauthenticated},
		{what: "empty authorization", access: file, network: "unix", headers: []string{""}, code: codes.Unauthenticated},
		{what: "basic over a socket", access: file, network: "unix", headers: []string{"Basic eDpwYXNz"}, code: codes.Unauthenticated},
		{what: "basic over a certificate", access: file, network: "tcp", server: serverTLS, transport: clientTLS(spiffe), headers: []string{"Basic eDpwYXNz"}, code: codes.Unauthenticated},
		{what: "token twice", access: file, network: "unix", bearer: token, headers: []string{"Bearer " + token}, code: codes.Unauthenticated},
		{what: "token beside basic", access: file, network: "unix", bearer: token, headers: []string{"Basic eDpwYXNz"}, code: codes.Unauthenticated},
		{what: "token with more behind it", access: file, network: "unix", bearer: token + ", Bearer x", code: codes.Unauthenticated},
		{what: "token with spaces around it", access: file, network: "unix", headers: []string{"bearer   " + token + " "}, want: &pylokv1.InfoResponse{Caller: "token:ci", Proof: "token", Groups: []string{"ci"}}},
	} {
		t.Run(test.what, func(t *testing.T) {
			ctx, cancel := contextOf(t)
			defer cancel()
			address := "127.0.0.1:0"
			if test.network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			listener := listenOn(t, test.network, address)
			log := &logBuffer{}
			debug := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			serveFor(t, test.access, ServerConfig{TLS: test.server, Interceptors: []Interceptor{LogCalls(debug)}}, listener)
			target := "dns:///" + listener.Addr().String()
			if test.network == "unix" {
				target = "unix://" + address
			}
			if test.transport == nil {
				test.transport = insecure.NewCredentials()
			}
			connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(test.transport))
			if err != nil {
				t.Fatal(err)
			}
			defer connection.Close()
			if test.bearer != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+test.bearer)
			}
			for _, header := range test.headers {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
			}
			for range 2 { // what was made of the connection is kept
				got, err := pylokv1.NewLockServiceClient(connection).Info(ctx, &pylokv1.InfoRequest{})
				refusedCode(t, err, test.code)
				if got.GetCaller() != test.want.GetCaller() || got.GetProof() != test.want.GetProof() || !slices.Equal(got.GetGroups(), test.want.GetGroups()) {
					t.Errorf("the server takes the caller for %q by %q in %q, want %q by %q in %q", got.GetCaller(), got.GetProof(), got.GetGroups(), test.want.GetCaller(), test.want.GetProof(), test.want.GetGroups())
				}
			}
			if strings.Contains(log.String(), "peer=@") || !strings.Contains(log.String(), "peer=") {
				t.Errorf("the log does not say from where:\n%s", log)
			}
			if want := test.want.GetCaller(); want != "" && !strings.Contains(log.String(), "caller="+want) {
				t.Errorf("the log does not say who called, %s:\n%s", want, log)
			}
			if strings.Contains(log.String(), token) {
				t.Errorf("the log has the token:\n%s", log)
			}
		})
	}
}
