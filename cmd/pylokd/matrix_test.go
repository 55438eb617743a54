package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
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
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pylok/pylok/access/bearer"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
	"github.com/pylok/pylok/internal/testissuer"
)

// proof is a way to prove who one is, with the name that the server then knows.
type proof struct {
	what   string // and the first segment of the locks that this one may do something to
	caller string
	client pylokv1.LockServiceClient
}

// noRights is the proof of callers to whom no rule gives anything.
const noRights = "no-rights"

// verbs of the access file, and what each allows besides itself.
var verbs = map[string][]string{
	"view":   {"view"},
	"lock":   {"lock", "view"},
	"break":  {"break", "view"},
	"freeze": {"freeze", "view"},
	"admin":  {"admin"},
	"":       {},
	// Both of them, which some requests need.
	"lock-freeze": {"lock", "freeze", "view"},
}

type rpc struct {
	what, verb string // the verb that it needs; two with a comma between them
	ask        func(context.Context, pylokv1.LockServiceClient, string) (visible bool, err error)
}

// aboutNoLock are the requests that look at no lock, and that everybody may make who has no
// wrong proof.
var aboutNoLock = []rpc{
	{"Info", "", func(ctx context.Context, c pylokv1.LockServiceClient, _ string) (bool, error) {
		_, err := c.Info(ctx, &pylokv1.InfoRequest{})
		return true, err
	}},
	{"May", "", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: name})
		return true, err
	}},
}

// TestMatrixIsWhole: each RPC of the contract is in it.
func TestMatrixIsWhole(t *testing.T) {
	var asked []string
	for _, rpc := range append(slices.Clone(rpcs), aboutNoLock...) {
		method, _, _ := strings.Cut(rpc.what, " ")
		asked = append(asked, method)
	}
	service := pylokv1.File_pylok_v1_lock_service_proto.Services().ByName("LockService")
	for i := range service.Methods().Len() {
		if method := string(service.Methods().Get(i).Name()); !slices.Contains(asked, method) {
			t.Errorf("the matrix does not have %s", method)
		}
	}
}

// rpcs are all requests about one lock, or about locks among which it is, and the verb that
// the lock needs. A request about many is not refused: it reports whether the lock was in
// the answer.
var rpcs = []rpc{
	{"Lock", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Lock(ctx, &pylokv1.LockRequest{Name: name})
		return true, err
	}},
	{"Lock with wait", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Lock(ctx, &pylokv1.LockRequest{Name: name, Wait: durationpb.New(time.Millisecond)})
		return true, err
	}},
	{"Lock with overwrite", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Lock(ctx, &pylokv1.LockRequest{Name: name, Holder: "root", Overwrite: true})
		return true, err
	}},
	{"Lock shared", "lock", locking(&pylokv1.LockRequest{Shared: true})},
	{"Lock with a limit and a wait without an end", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		return locking(&pylokv1.LockRequest{Shared: true, Limit: 1, WaitForever: true})(ctx, c, name)
	}},
	{"Lock in place of a stale hold", "lock", locking(&pylokv1.LockRequest{ReplaceStale: true, Reason: "a test"})},
	{"Lock with tree", "freeze", locking(&pylokv1.LockRequest{Tree: true})},
	{"Lock with tree and drain", "freeze", locking(&pylokv1.LockRequest{Tree: true, Drain: true, Wait: durationpb.New(time.Millisecond)})},
	{"Lock through a freeze", "lock,freeze", locking(&pylokv1.LockRequest{ThroughFreeze: true, Reason: "a test"})},
	{"LockSet, first", "lock", lockingSet(func(name, fine string) *pylokv1.LockSetRequest {
		return &pylokv1.LockSetRequest{Names: []string{name, fine}}
	})},
	{"LockSet, last", "lock", lockingSet(func(name, fine string) *pylokv1.LockSetRequest {
		return &pylokv1.LockSetRequest{Names: []string{fine, name}}
	})},
	{"LockSet of two pools", "lock", lockingSet(func(name, fine string) *pylokv1.LockSetRequest {
		return &pylokv1.LockSetRequest{Choices: []*pylokv1.Choice{{Names: []string{fine}}, {Names: []string{name}}}}
	})},
	{"LockSet with wait", "lock", lockingSet(func(name, fine string) *pylokv1.LockSetRequest {
		return &pylokv1.LockSetRequest{Names: []string{fine, name}, Wait: durationpb.New(time.Millisecond)}
	})},
	{"LockSet through a freeze", "lock,freeze", lockingSet(func(name, fine string) *pylokv1.LockSetRequest {
		return &pylokv1.LockSetRequest{Names: []string{name}, ThroughFreeze: true, Reason: "a test"}
	})},
	{"UnlockSet", "lock", unlockingSet(&pylokv1.UnlockSetRequest{})},
	{"UnlockSet with force", "break", unlockingSet(&pylokv1.UnlockSetRequest{Force: true, Reason: "a test"})},
	{"RenewSet", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.RenewSet(ctx, &pylokv1.RenewSetRequest{Holds: besides(name, "lock"), Expiry: &pylokv1.RenewSetRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
		return true, err
	}},
	{"HandOver", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.HandOver(ctx, &pylokv1.HandOverRequest{Name: name, Token: 1, Caller: "token:root"})
		return true, err
	}},
	{"Ask", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Ask(ctx, &pylokv1.AskRequest{Name: name, Message: "a test"})
		return true, err
	}},
	{"Dismiss", "break", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Dismiss(ctx, &pylokv1.DismissRequest{Name: name, Place: 1, Reason: "a test"})
		return true, err
	}},
	{"Unlock of a stale hold", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Stale: true, Reason: "a test"})
		return true, err
	}},
	{"Renew", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Renew(ctx, &pylokv1.RenewRequest{Name: name, Token: 1, Expiry: &pylokv1.RenewRequest_Ttl{Ttl: durationpb.New(time.Hour)}})
		return true, err
	}},
	{"Unlock", "lock", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Holder: "root"})
		return true, err
	}},
	{"Unlock with force", "break", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: 1, Force: true, Reason: "a test"})
		return true, err
	}},
	{"Status", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.Status(ctx, &pylokv1.StatusRequest{Name: name})
		return true, err
	}},
	{"List of the name", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inList(ctx, c, name, name)
	}},
	{"List", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inList(ctx, c, name, "**")
	}},
	{"Watch of the name", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inWatch(ctx, c, name, name)
	}},
	{"Watch as the holder", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inWatchBy(ctx, c, name, &pylokv1.WatchRequest{Pattern: name, Token: 1})
	}},
	{"Watch", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inWatch(ctx, c, name, "")
	}},
	{"History of the name", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inHistory(ctx, c, name, name)
	}},
	{"History", "view", func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		return inHistory(ctx, c, name, "**")
	}},
}

// asker asks about a lock.
type asker = func(context.Context, pylokv1.LockServiceClient, string) (visible bool, err error)

func locking(request *pylokv1.LockRequest) asker {
	return func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		request := proto.CloneOf(request)
		request.Name = name
		_, err := c.Lock(ctx, request)
		return true, err
	}
}

// fineFor is a lock to which whoever may do something may do it, among the locks that a name
// is of.
func fineFor(name, verb string) string {
	whose, _, _ := strings.Cut(name, "/")
	return whose + "/" + verb + "/fine"
}

func lockingSet(of func(name, fine string) *pylokv1.LockSetRequest) asker {
	return func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		_, err := c.LockSet(ctx, of(name, fineFor(name, "lock")))
		return true, err
	}
}

func unlockingSet(request *pylokv1.UnlockSetRequest) asker {
	return func(ctx context.Context, c pylokv1.LockServiceClient, name string) (bool, error) {
		request := proto.CloneOf(request)
		request.Holds = besides(name, "lock")
		if request.Force {
			request.Holds = besides(name, "break")
		}
		_, err := c.UnlockSet(ctx, request)
		return true, err
	}
}

// besides are a hold of fineFor and one of a lock.
func besides(name, verb string) []*pylokv1.HoldRef {
	return []*pylokv1.HoldRef{{Name: fineFor(name, verb), Token: 1}, {Name: name, Token: 1}}
}

func inList(ctx context.Context, c pylokv1.LockServiceClient, name, pattern string) (found bool, err error) {
	request := &pylokv1.ListRequest{Pattern: pattern, PageSize: 7}
	for more := true; more && err == nil; more = request.PageToken != "" {
		var page *pylokv1.ListResponse
		page, err = c.List(ctx, request)
		found = found || slices.ContainsFunc(page.GetLocks(), func(l *pylokv1.Lock) bool { return l.Name == name })
		request.PageToken = page.GetNextPageToken()
	}
	return found, err
}

func inHistory(ctx context.Context, c pylokv1.LockServiceClient, name, pattern string) (found bool, err error) {
	request := &pylokv1.HistoryRequest{Pattern: pattern, PageSize: 7}
	for more := true; more && err == nil; more = request.PageToken != "" {
		var page *pylokv1.HistoryResponse
		page, err = c.History(ctx, request)
		found = found || slices.ContainsFunc(page.GetEvents(), func(e *pylokv1.Event) bool { return e.Lock.GetName() == name })
		request.PageToken = page.GetNextPageToken()
	}
	return found, err
}

func inWatch(ctx context.Context, c pylokv1.LockServiceClient, name, pattern string) (found bool, err error) {
	return inWatchBy(ctx, c, name, &pylokv1.WatchRequest{Pattern: pattern})
}

func inWatchBy(ctx context.Context, c pylokv1.LockServiceClient, name string, request *pylokv1.WatchRequest) (found bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Watch(ctx, request)
	for err == nil {
		var response *pylokv1.WatchResponse
		if response, err = stream.Recv(); err != nil {
			break
		}
		found = found || response.Event.Lock.GetName() == name
		if response.Event.Type == pylokv1.EventType_EVENT_TYPE_SYNCED {
			return found, nil
		}
	}
	return found, err
}

// proofs starts servers and returns a client with each proof, and the callers of an access
// file that has a group for each.
func proofs(t *testing.T) (all []proof, locks pylokv1.LockServiceClient) {
	t.Helper()
	issuer, stranger := testissuer.New(t), testissuer.New(t)
	authority := testcert.New(t)
	server := authority.Server(testcert.Options{})
	secret, hash := bearer.New()
	dir := t.TempDir()
	socket := filepath.Join(dir, "pylok.sock")

	var file strings.Builder
	fmt.Fprintf(&file, `callers:
  - {unix: {user: "%d"}, groups: [socket]}
  - {unix: {user: "4711"}, groups: [another]}
  - {name: ci, token: %q, groups: [token]}
  - {name: "job:{repository} run {run_id}", jwt: {issuer: %q, audience: pylok.corp, claims: {repository_owner_id: "1234"}}, groups: [oidc]}
  - {certificate: {uri: "spiffe://corp/deploy/*"}, groups: [certificate]}
  - {name: idle, token: "sha256:%x", groups: [idle]}
  - {name: root, token: "sha256:%x", groups: [root]}
  - {name: root, token: "sha256:%x", expires: 2020-01-01, groups: [root]}
rules:
  - {who: ["group:root"], may: [lock, break, freeze], locks: ["**"]}
`, os.Geteuid(), hash, issuer.URL, sha256.Sum256([]byte("pylok_idle")), sha256.Sum256([]byte("pylok_root")), sha256.Sum256([]byte("pylok_old")))
	for _, who := range []string{"socket", "another", "token", "oidc", "certificate", "anonymous"} {
		for verb := range verbs {
			word := "group:" + who
			if who == "anonymous" {
				word = who
			}
			switch verb {
			case "":
			case "admin":
				fmt.Fprintf(&file, "  - {who: [%q], may: [admin]}\n", word)
			default:
				fmt.Fprintf(&file, "  - {who: [%q], may: [%s], locks: [%q]}\n", word, strings.ReplaceAll(verb, "-", ", "), who+"/"+verb+"/**")
			}
		}
	}
	p := start(t, nil, "--root", t.TempDir(), "--listen", "127.0.0.1:0", "--socket", socket, "--access", accessFile(t, file.String()),
		"--tls-cert", server.CertFile, "--tls-key", server.KeyFile, "--tls-client-ca", authority.CertFile)

	add := func(what, caller, target string, transport credentials.TransportCredentials, token string, more ...grpc.DialOption) pylokv1.LockServiceClient {
		options := append(more, grpc.WithTransportCredentials(transport))
		if token != "" {
			withToken := func(ctx context.Context) context.Context {
				return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
			}
			options = append(options,
				grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, response any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
					return invoke(withToken(ctx), method, request, response, conn, options...)
				}),
				grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
					return stream(withToken(ctx), desc, conn, method, options...)
				}))
		}
		conn, err := grpc.NewClient(target, options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		client := pylokv1.NewLockServiceClient(conn)
		if what != "root" {
			all = append(all, proof{what, caller, client})
		}
		return client
	}
	encrypted := func(certificates ...tls.Certificate) credentials.TransportCredentials {
		return credentials.NewTLS(&tls.Config{RootCAs: authority.Pool(), Certificates: certificates})
	}
	spiffe := authority.Client(testcert.Options{URIs: []string{"spiffe://corp/deploy/web"}}).TLS()
	jwt := issuer.Token(map[string]any{"aud": "pylok.corp", "repository": "o/r", "run_id": "4711", "repository_owner_id": "1234"})
	issuer.Rotate()
	rotated := issuer.Token(map[string]any{"aud": "pylok.corp", "repository": "o/r", "run_id": "4712", "repository_owner_id": "1234"})

	unix := "unix://" + socket
	add("anonymous", "anonymous", "dns:///"+p.address, encrypted(), "")
	add("certificate", "cert:spiffe://corp/deploy/web", "dns:///"+p.address, encrypted(spiffe), "")
	add("token", "token:ci", "dns:///"+p.address, encrypted(), secret)
	add("token", "token:ci", unix, insecure.NewCredentials(), secret)
	add("token", "token:ci", "dns:///"+p.address, encrypted(spiffe), secret)
	undescribed := authority.Client(testcert.Options{CommonName: "web"}).TLS()
	add(noRights, "cert:web", "dns:///"+p.address, encrypted(undescribed), "") // which no entry describes
	add(noRights, "token:idle", unix, insecure.NewCredentials(), "pylok_idle")
	add("oidc", "job:o/r run 4712", "dns:///"+p.address, encrypted(), rotated)
	add("socket", "", unix, insecure.NewCredentials(), "")
	if os.Geteuid() == 0 {
		letIn(t, dir)
		add("another", "unix:4711", "passthrough:///x", insecure.NewCredentials(), "",
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dialAs(socket, 4711) }))
	}
	locks = add("root", "", unix, insecure.NewCredentials(), "pylok_root")

	// What is wrong is no proof, and nobody anonymous either, whatever the connection proves.
	good := map[string]any{"aud": "pylok.corp", "repository": "o/r", "run_id": "1", "repository_owner_id": "1234"}
	inTheNameOf := maps.Clone(good)
	inTheNameOf["iss"] = issuer.URL
	for what, token := range map[string]string{
		"a token that is cut":                secret[:len(secret)-1],
		"a token of a stranger":              stranger.Token(good),
		"a stranger's in the issuer's name":  stranger.Token(inTheNameOf),
		"a token without what the name says": issuer.Token(map[string]any{"aud": "pylok.corp", "repository_owner_id": "1234"}),
		"a token of a key that is withdrawn": jwt,
		"a token of nobody":                  "pylok_nobody",
		"a token that has expired":           "pylok_old",
		"a token for others":                 issuer.Token(map[string]any{"aud": "others", "repository": "o/r", "run_id": "1", "repository_owner_id": "1234"}),
		"a token of another owner":           issuer.Token(map[string]any{"aud": "pylok.corp", "repository": "o/r", "run_id": "1", "repository_owner_id": "5"}),
		"a token that is over":               issuer.Token(map[string]any{"aud": "pylok.corp", "repository": "o/r", "run_id": "1", "repository_owner_id": "1234", "exp": time.Now().Add(-time.Hour).Unix()}),
	} {
		for _, client := range []pylokv1.LockServiceClient{
			add("root", "", unix, insecure.NewCredentials(), token),
			add("root", "", "dns:///"+p.address, encrypted(spiffe), token),
		} {
			for _, rpc := range append(slices.Clone(rpcs), aboutNoLock...) {
				if _, err := rpc.ask(t.Context(), client, "x"); status.Code(err) != codes.Unauthenticated {
					t.Errorf("%s with %s: %v, want %v", rpc.what, what, err, codes.Unauthenticated)
				} else if strings.Contains(err.Error(), token) {
					t.Errorf("%s with %s: the refusal has the token", rpc.what, what)
				}
			}
		}
	}
	return all, locks
}

// letIn lets other users through the directories that a test has made.
func letIn(t *testing.T, dir string) {
	t.Helper()
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMatrix is every proof, every verb and every RPC, over real connections: a request is
// answered where the rules allow its verb to that caller for that lock, and nowhere else.
func TestMatrix(t *testing.T) {
	all, root := proofs(t)
	if _, err := root.May(t.Context(), &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: "x", As: "group:token"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("who is no admin asks for others: %v", err)
	}
	for i, p := range all {
		if info, err := p.client.Info(t.Context(), &pylokv1.InfoRequest{}); err != nil || p.caller != "" && info.Caller != p.caller {
			t.Errorf("by %s the server knows %q (%v), want %q", p.what, info.GetCaller(), err, p.caller)
		}
		if _, err := p.client.May(t.Context(), &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: "x", As: "group:root"}); (err == nil) != (p.what != noRights) || err != nil && status.Code(err) != codes.PermissionDenied {
			t.Errorf("by %s what others may is asked for: %v", p.what, err)
		}
		for _, whose := range []string{p.what, "root"} { // and the locks of nobody whom the rules name
			for verb, allowed := range verbs {
				for _, rpc := range rpcs {
					name := fmt.Sprintf("%s/%s/%d/%s", whose, cmp.Or(verb, "none"), i, strings.NewReplacer(" ", "-", ",", "").Replace(rpc.what))
					held, err := root.Lock(t.Context(), &pylokv1.LockRequest{Name: name, Holder: "root"})
					if err != nil {
						t.Fatal(err)
					}
					lacks := func(verb string) bool { return !slices.Contains(allowed, verb) }
					want := p.what != noRights && whose == p.what && !slices.ContainsFunc(strings.Split(rpc.verb, ","), lacks)
					visible, err := rpc.ask(t.Context(), p.client, name)
					isWide := slices.Contains([]string{"List", "Watch", "History"}, rpc.what)
					switch denied := status.Code(err) == codes.PermissionDenied; {
					case errors.Is(err, io.EOF), status.Code(err) == codes.Unauthenticated, status.Code(err) == codes.Internal, status.Code(err) == codes.InvalidArgument:
						t.Errorf("%s of %s by %s: %v", rpc.what, name, p.what, err)
					case isWide && (err != nil || visible != want):
						t.Errorf("%s by %s: the lock %s is in the answer: %t, %v; want %t", rpc.what, p.what, name, visible, err, want)
					case !isWide && denied == want:
						t.Errorf("%s of %s by %s: %v; want refused: %t", rpc.what, name, p.what, err, !want)
					case !isWide && denied && bytes.Contains([]byte(err.Error()), []byte("held")):
						t.Errorf("%s of %s by %s tells of the hold: %v", rpc.what, name, p.what, err)
					}
					if free := name + "-free"; !want && !isWide {
						_, freeErr := rpc.ask(t.Context(), p.client, free)
						of := func(err error, name string) string {
							s := status.Convert(err)
							return strings.ReplaceAll(fmt.Sprint(s.Code(), s.Message(), s.Details()), name, "NAME")
						}
						if ofHeld, ofFree := of(err, name), of(freeErr, free); ofHeld != ofFree {
							t.Errorf("%s by %s tells a held lock from a free one: %s, %s", rpc.what, p.what, ofHeld, ofFree)
						}
					}
					words := map[string]pylokv1.Verb{"view": pylokv1.Verb_VERB_VIEW, "lock": pylokv1.Verb_VERB_LOCK, "break": pylokv1.Verb_VERB_BREAK, "freeze": pylokv1.Verb_VERB_FREEZE}
					if words[rpc.verb] != 0 && verb != "admin" && verb != "" {
						if answer, err := p.client.May(t.Context(), &pylokv1.MayRequest{Verb: words[rpc.verb], Name: name}); err != nil || answer.Allowed != want {
							t.Errorf("May %s %s by %s: %v, %v; want %t", rpc.verb, name, p.what, answer, err, want)
						}
					}
					now, err := root.Status(t.Context(), &pylokv1.StatusRequest{Name: name})
					if err != nil || now.Lock.Token != held.Lock.Token || now.Lock.Caller != "token:root" {
						t.Errorf("%s by %s has changed root's hold of %s to %v, %v", rpc.what, p.what, name, now, err)
					}
				}
			}
		}
	}
}
