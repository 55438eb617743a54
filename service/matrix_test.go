package service

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/access"
	"github.com/pylok/pylok/access/bearer"
	"github.com/pylok/pylok/access/limits"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
	"github.com/pylok/pylok/internal/testissuer"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

// matrixCall is a way to ask for something that concerns one lock.
type matrixCall struct {
	rpc   string
	needs access.Verb // 0: nothing
	call  func(ctx context.Context, c pylokv1.LockServiceClient, name string) error
}

// matrixCalls has each RPC at least once.
var matrixCalls = []matrixCall{
	{"Status", access.View, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.Status(ctx, &pylokv1.StatusRequest{Name: name})
		return err
	}},
	{"List", access.View, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.List(ctx, &pylokv1.ListRequest{Pattern: name})
		return err
	}},
	{"History", access.View, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.History(ctx, &pylokv1.HistoryRequest{Pattern: name})
		return err
	}},
	{"Watch", access.View, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.Watch(ctx, &pylokv1.WatchRequest{Pattern: name})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}},
	{"Lock", access.Lock, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "x"})
		return err
	}},
	{"Renew", access.Lock, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.Renew(ctx, &pylokv1.RenewRequest{Name: name, Token: 1 << 40})
		return err
	}},
	{"Unlock", access.Lock, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: 1 << 40})
		return err
	}},
	{"Unlock", access.Break, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: 1 << 40, Force: true, Reason: "r"})
		return err
	}},
	{"Info", 0, func(ctx context.Context, c pylokv1.LockServiceClient, _ string) error {
		_, err := c.Info(ctx, &pylokv1.InfoRequest{})
		return err
	}},
	{"May", 0, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: name})
		return err
	}},
	{"May", access.Admin, func(ctx context.Context, c pylokv1.LockServiceClient, name string) error {
		_, err := c.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: name, As: lock.Anonymous + "x"})
		return err
	}},
}

// secretOfLocks is in the data and the holder of every lock of the matrix.
const secretOfLocks = "h0lder-and-data"

// TestMatrix: each proof of who asks, with each verb that the access file can give, and each
// RPC, over real connections. What is not given is PERMISSION_DENIED, whether the lock is
// held or free, and says nothing of it; a proof that is wrong or over is UNAUTHENTICATED
// whatever it asks for, and never an anonymous caller.
func TestMatrix(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	token, hash := bearer.New()
	idle, idleHash := bearer.New()
	old, oldHash := bearer.New()
	unknown, _ := bearer.New()
	issuer, stranger := testissuer.New(t), testissuer.New(t)
	authority := testcert.New(t)
	claims := func(more ...any) map[string]any {
		c := map[string]any{"aud": "pylok.test", "repository_id": "7", "repository": "corp/web"}
		for i := 0; i < len(more); i += 2 {
			c[more[i].(string)] = more[i+1]
		}
		return c
	}
	var rules strings.Builder
	const who = `"group:g", anonymous`
	for verb := access.View; verb <= access.Freeze; verb++ {
		fmt.Fprintf(&rules, "  - {who: [%s], may: [%v], locks: [\"%v/**\"]}\n", who, verb, verb)
	}
	accessFile := filepath.Join(t.TempDir(), "access.yaml")
	// admins is whether admin is given to the group too: it concerns no lock.
	write := func(admins bool) {
		text := `
callers:
  - {unix: {user: "` + me.Uid + `"}, groups: [g]}
  - {name: ci, token: "` + hash + `", groups: [g]}
  - {name: idle, token: "` + idleHash + `", groups: [idle]}
  - {name: old, token: "` + oldHash + `", groups: [g], expires: 2020-01-01}
  - {name: "ci:{repository}", jwt: {issuer: "` + issuer.URL + `", audience: pylok.test, claims: {repository_id: "7"}}, groups: [g]}
  - {certificate: {uri: "spiffe://corp/deploy/*"}, groups: [g]}
rules:
` + rules.String()
		if admins {
			text += "  - {who: [" + who + "], may: [admin]}\n"
		}
		if err := os.WriteFile(accessFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(false)
	control, err := access.NewControl(access.Config{File: accessFile})
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New(memstore.Config{})
	m, err := manager.New(store, manager.Config{})
	if err != nil {
		t.Fatal(err)
	}
	limited := limits.New(access.NewGuard(m, control, access.GuardConfig{}), limits.Config{})
	service := New(limited, Config{May: control.May})
	plain, socket, encrypted := listenOn(t, "tcp", "127.0.0.1:0"), listenOn(t, "unix", filepath.Join(t.TempDir(), "s")), listenOn(t, "tcp", "127.0.0.1:0")
	server := NewServer(service, ServerConfig{Identify: control.Identify})
	tlsServer := NewServer(service, ServerConfig{Identify: control.Identify, TLS: &tls.Config{
		Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    authority.Pool(),
	}})
	go server.Serve(plain)
	go server.Serve(socket)
	go tlsServer.Serve(encrypted)
	t.Cleanup(func() {
		m.Close()
		limited.Close()
		server.Stop(time.Second)
		tlsServer.Stop(time.Second)
		store.Close()
	})
	for _, where := range []string{"none", "view", "lock", "break", "freeze"} {
		data, err := structpb.NewStruct(map[string]any{"msg": secretOfLocks})
		if err != nil {
			t.Fatal(err)
		}
		request, err := service.lockRequest(&pylokv1.LockRequest{Name: where + "/held", Holder: secretOfLocks, Data: data})
		if err == nil {
			_, err = m.Lock(t.Context(), lock.Caller{Name: "unix:somebody"}, request)
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	dial := func(target string, transport credentials.TransportCredentials) pylokv1.LockServiceClient {
		connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(transport))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { connection.Close() })
		return pylokv1.NewLockServiceClient(connection)
	}
	withCertificate := func(certificates ...tls.Certificate) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: authority.Pool(), Certificates: certificates})
	}
	overTCP := dial(plain.Addr().String(), insecure.NewCredentials())
	overSocket := dial("unix://"+socket.Addr().String(), insecure.NewCredentials())
	overTLS := dial(encrypted.Addr().String(), withCertificate())
	deployer := dial(encrypted.Addr().String(), withCertificate(authority.Client(testcert.Options{URIs: []string{"spiffe://corp/deploy/web"}}).TLS()))
	other := dial(encrypted.Addr().String(), withCertificate(authority.Client(testcert.Options{URIs: []string{"spiffe://corp/other"}}).TLS()))

	const (
		full    = iota // has what the rules give to g
		nothing        // is somebody to whom they give nothing
		refused        // has a bad proof
	)
	// A name for each, what the server must take it for, and how it calls.
	proofs := []struct {
		name, caller string
		rights       int
		client       pylokv1.LockServiceClient
		bearer       string
	}{
		{"socket", "unix:" + me.Username, full, overSocket, ""},
		{"token", "token:ci", full, overTLS, token},
		{"token over the socket", "token:ci", full, overSocket, token},
		{"JWT", "ci:corp/web", full, overTLS, issuer.Token(claims())},
		{"certificate", "cert:spiffe://corp/deploy/web", full, deployer, ""},
		{"anonymous over plaintext", "anonymous", full, overTCP, ""},
		{"anonymous over TLS", "anonymous", full, overTLS, ""},
		{"token of another group", "token:idle", nothing, overTLS, idle},
		{"token of another group over the socket", "token:idle", nothing, overSocket, idle},
		{"other certificate", "cert:spiffe://corp/other", nothing, other, ""},
		{"unknown token", "", refused, overSocket, unknown},
		{"token that is over", "", refused, deployer, old},
		{"cut token", "", refused, overTCP, token[:len(token)-1]},
		{"JWT for another audience", "", refused, overSocket, issuer.Token(claims("aud", "other"))},
		{"JWT of another repository", "", refused, overTLS, issuer.Token(claims("repository_id", "8"))},
		{"JWT that is over", "", refused, overTLS, issuer.Token(claims("exp", time.Now().Add(-time.Hour).Unix()))},
		{"JWT of a stranger", "", refused, overTLS, stranger.Token(claims())},
		{"JWT of a stranger in the issuer's name", "", refused, overTLS, stranger.Token(claims("iss", issuer.URL))},
		{"JWT without a name", "", refused, overTLS, issuer.Token(map[string]any{"aud": "pylok.test", "repository_id": "7"})},
	}
	var asked []string
	for _, proof := range proofs {
		t.Run(proof.name, func(t *testing.T) {
			ctx, cancel := contextOf(t)
			defer cancel()
			if proof.bearer != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+proof.bearer)
			}
			info, err := proof.client.Info(ctx, &pylokv1.InfoRequest{})
			if proof.rights != refused && (err != nil || info.GetCaller() != proof.caller) {
				t.Fatalf("it is %q, %v; want %q", info.GetCaller(), err, proof.caller)
			}
			for _, where := range []string{"none", "view", "lock", "break", "freeze"} {
				for _, name := range []string{where + "/held", where + "/free"} {
					for _, c := range matrixCalls {
						asked = append(asked, c.rpc)
						may := c.needs == 0 || proof.rights == full && (where == c.needs.String() || c.needs == access.View && where != "none")
						err := c.call(ctx, proof.client, name)
						code := status.Code(err)
						want := "PERMISSION_DENIED"
						var ok bool
						switch {
						case proof.rights == refused:
							want, ok = "UNAUTHENTICATED", code == codes.Unauthenticated
						case may:
							want, ok = "to be let in", code != codes.PermissionDenied && code != codes.Unauthenticated && code != codes.Internal && code != codes.Unimplemented
						default:
							ok = code == codes.PermissionDenied
						}
						if !ok {
							t.Errorf("%s (%v) of %s: got %v, want %s", c.rpc, c.needs, name, err, want)
						}
						if told := fmt.Sprintf("%v %v", err, status.Convert(err).Details()); !may && strings.Contains(told, secretOfLocks) {
							t.Errorf("%s of %s: the refusal has what is in the lock: %s", c.rpc, name, told)
						}
						if proof.bearer != "" && err != nil && strings.Contains(err.Error(), proof.bearer) {
							t.Errorf("%s of %s: the refusal has the token", c.rpc, name)
						}
						if code == codes.OK && c.rpc == "Lock" { // free again for the next
							if _, err := m.Unlock(ctx, lock.Caller{}, lock.UnlockRequest{Name: lock.MustParseName(name), Force: true, Reason: "r"}); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
			}
		})
	}
	for _, method := range pylokv1.LockService_ServiceDesc.Methods {
		if !slices.Contains(asked, method.MethodName) {
			t.Errorf("the matrix does not have the RPC %s", method.MethodName)
		}
	}
	for _, stream := range pylokv1.LockService_ServiceDesc.Streams {
		if !slices.Contains(asked, stream.StreamName) {
			t.Errorf("the matrix does not have the RPC %s", stream.StreamName)
		}
	}

	// admin, which concerns no lock.
	write(true)
	if err := control.Reload(); err != nil {
		t.Fatal(err)
	}
	for _, proof := range proofs {
		ctx, cancel := contextOf(t)
		if proof.bearer != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+proof.bearer)
		}
		_, err := proof.client.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: "a", As: "group:idle"})
		want := map[int]codes.Code{full: codes.OK, nothing: codes.PermissionDenied, refused: codes.Unauthenticated}[proof.rights]
		if status.Code(err) != want {
			t.Errorf("%s as an admin: got %v, want %v", proof.name, err, want)
		}
		cancel()
	}
}
