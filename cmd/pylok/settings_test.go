package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
	"github.com/pylok/pylok/internal/testissuer"
)

// mirror answers Info with what it was told of the caller: the authorization, or the name
// in the certificate.
type mirror struct {
	pylokv1.UnimplementedLockServiceServer
	refuse error // nil: it does not
}

func (m mirror) Info(ctx context.Context, _ *pylokv1.InfoRequest) (*pylokv1.InfoResponse, error) {
	return &pylokv1.InfoResponse{Version: "mirror", Caller: strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ", ")}, m.refuse
}

// patient lets a client read why it is refused, as pylokd does: a connection that is closed
// with something unread in it is reset, and the alert is lost.
type patient struct {
	credentials.TransportCredentials
}

func (p patient) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	held := &heldConn{Conn: raw, held: true}
	conn, info, err := p.TransportCredentials.ServerHandshake(held)
	held.held = false
	if err != nil {
		if tcp, ok := raw.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
			io.Copy(io.Discard, raw) // until the client has gone
		}
		raw.Close()
	}
	return conn, info, err
}

// heldConn is a connection that nobody closes as long as it is held.
type heldConn struct {
	net.Conn
	held bool
}

// Close implements net.Conn.
func (c *heldConn) Close() error {
	if c.held {
		return nil
	}
	return c.Conn.Close()
}

// TestTLSMistakes: what keeps TLS from coming about is said, and what to do.
func TestTLSMistakes(t *testing.T) {
	authority, other := testcert.New(t), testcert.New(t)
	certificate := authority.Server(testcert.Options{})
	mine, foreign := authority.Client(testcert.Options{CommonName: "mine"}), other.Client(testcert.Options{CommonName: "foreign"})
	server := func(config *tls.Config) string {
		if config.Certificates == nil {
			config.Certificates = []tls.Certificate{certificate.TLS()}
		}
		config.ClientCAs = authority.Pool()
		address, _ := serve(t, mirror{}, grpc.Creds(patient{credentials.NewTLS(config)}))
		return address
	}
	of := func(pair *testcert.Pair) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{pair.TLS()}} }
	good := server(&tls.Config{})
	demands := server(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert})
	demands12 := server(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: tls.VersionTLS12})
	old := server(&tls.Config{MaxVersion: tls.VersionTLS12})
	const unknown, twelve = "is from a CA that this system does not know: add --ca FILE", "--tls-min-version=1.2"
	ca := "--ca=" + authority.CertFile
	for _, test := range []struct {
		name, address string
		args          []string
		want          string // empty: it works
	}{
		{"all is well", good, []string{ca}, ""},
		{"plaintext to TLS", good, nil, "speaks TLS: add --tls, or --ca FILE"},
		{"a CA of one's own", good, []string{"--tls"}, unknown},
		{"the wrong CA", good, []string{"--ca", other.CertFile}, "is not from a CA in " + other.CertFile + " (--ca)"},
		{"another name", server(of(authority.Server(testcert.Options{DNS: []string{"locks.example.com"}}))), []string{ca}, "has a certificate for another name"},
		{"an expired certificate", server(of(authority.Server(testcert.Options{NotAfter: time.Now().Add(-time.Minute)}))), []string{ca}, "has a certificate that is not valid now"},
		{"a certificate of tomorrow", server(of(authority.Server(testcert.Options{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)}))), []string{ca}, "unless the clock here is wrong"},
		{"TLS 1.2", old, []string{ca}, "have it speak TLS 1.3, or add --tls-min-version 1.2"},
		{"TLS 1.2 as agreed", old, []string{ca, twelve}, ""},
		{"no certificate", demands, []string{ca}, "wants a certificate of yours: add --cert FILE and --key FILE"},
		{"no certificate, TLS 1.2", demands12, []string{ca, twelve}, "wants a certificate of yours: add --cert FILE and --key FILE"},
		{"a certificate", demands, []string{ca, "--cert", mine.CertFile, "--key", mine.KeyFile}, ""},
		{"a certificate, TLS 1.2", demands12, []string{ca, twelve, "--cert", mine.CertFile, "--key", mine.KeyFile}, ""},
		{"a certificate of elsewhere", demands, []string{ca, "--cert", foreign.CertFile, "--key", foreign.KeyFile}, "does not take your certificate " + foreign.CertFile + " (--cert)"},
		{"a certificate of elsewhere, TLS 1.2", demands12, []string{ca, twelve, "--cert", foreign.CertFile, "--key", foreign.KeyFile}, "does not take your certificate " + foreign.CertFile + " (--cert)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			result := pylok(t, test.address, append([]string{"info"}, test.args...)...)
			if test.want == "" {
				result.want(t, exitDone, "pylokd mirror at "+test.address)
				return
			}
			result.want(t, exitUnreachable, test.want, test.address)
		})
	}
}

// TestSettings: a flag counts before the context that --context names, that before a
// variable, and a variable before any other context. A context that was not asked for
// counts only at its own address.
func TestSettings(t *testing.T) {
	authority := testcert.New(t)
	secure, _ := serve(t, mirror{}, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()}})))
	plain, _ := serve(t, mirror{})
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	dir := filepath.Join(home, ".config", "pylok")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(filepath.Join(dir, "prod.token"), "of-prod\n")
	write(filepath.Join(home, "home.token"), "of-home\n")
	write(filepath.Join(dir, "ca.pem"), string(authority.CertPEM))
	variable := write(filepath.Join(home, "variable"), "of-variable")
	flag := write(filepath.Join(home, "flag"), "of-flag")
	config := `# servers
default: prod # for now
contexts:
  prod: {address: "` + secure + `", ca: ca.pem, token_file: prod.token}
  home:
    address: ` + secure + `
    tls: true
    ca: ` + authority.CertFile + `
    token_file: ~/home.token
  open: {address: "` + plain + `"}
`
	write(filepath.Join(dir, "config.yaml"), config)
	ca := []string{"--ca", authority.CertFile}
	job := func(more ...string) map[string]string { // of GitHub
		variables := testissuer.New(t).Job(map[string]any{})
		for i := 0; i < len(more); i += 2 {
			variables[more[i]] = more[i+1]
		}
		return variables
	}
	for _, test := range []struct {
		name      string
		variables map[string]string
		args      []string
		want      string // whom the server saw, or the error
	}{
		{"the default", nil, nil, "Bearer of-prod"},
		{"--context", nil, []string{"--context", "home"}, "Bearer of-home"},
		{"PYLOK_CONTEXT", map[string]string{"PYLOK_CONTEXT": "home"}, nil, "Bearer of-home"},
		{"--context before PYLOK_CONTEXT", map[string]string{"PYLOK_CONTEXT": "home"}, []string{"--context", "prod"}, "Bearer of-prod"},
		{"a variable before the default", map[string]string{"PYLOK_TOKEN_FILE": variable}, nil, "Bearer of-variable"},
		{"a variable before PYLOK_CONTEXT", map[string]string{"PYLOK_TOKEN_FILE": variable, "PYLOK_CONTEXT": "home"}, nil, "Bearer of-variable"},
		{"--context before a variable", map[string]string{"PYLOK_TOKEN_FILE": variable, "PYLOK_ADDRESS": plain}, []string{"--context", "home"}, "Bearer of-home"},
		{"a flag before all", map[string]string{"PYLOK_TOKEN_FILE": variable}, []string{"--context", "home", "--token-file", flag}, "Bearer of-flag"},
		{"--address without the default's token", nil, append(ca, "--address", secure), ""},
		{"--address without PYLOK_CONTEXT's token", map[string]string{"PYLOK_CONTEXT": "home"}, append(ca, "--address", secure), ""},
		{"--address with --context", nil, []string{"--context", "home", "--address", strings.Replace(secure, "127.0.0.1", "localhost", 1)}, "Bearer of-home"},
		{"PYLOK_ADDRESS without the default's token", map[string]string{"PYLOK_ADDRESS": secure, "PYLOK_CA": authority.CertFile}, nil, ""},
		{"as run hands it on", map[string]string{"PYLOK_ADDRESS": secure, "PYLOK_CONTEXT": "home"}, nil, "Bearer of-home"},
		{"PYLOK_ADDRESS without the token of another server's PYLOK_CONTEXT", map[string]string{"PYLOK_ADDRESS": strings.Replace(secure, "127.0.0.1", "localhost", 1), "PYLOK_CA": authority.CertFile, "PYLOK_CONTEXT": "home"}, nil, ""},
		{"plaintext", map[string]string{"PYLOK_TOKEN_FILE": variable}, []string{"--context", "open"}, "whoever does would get the bearer token"},
		{"plaintext that is meant", map[string]string{"PYLOK_TOKEN_FILE": variable, "PYLOK_INSECURE": "true"}, []string{"--context", "open"}, "Bearer of-variable"},
		{"a job", job("PYLOK_ADDRESS", secure, "PYLOK_CA", authority.CertFile), nil, "Bearer eyJ"},
		{"a job of GitLab", map[string]string{"PYLOK_ADDRESS": secure, "PYLOK_CA": authority.CertFile, "PYLOK_ID_TOKEN": "of-gitlab"}, nil, "Bearer of-gitlab"},
		{"a job with a token of its own", job("PYLOK_ADDRESS", secure, "PYLOK_CA", authority.CertFile), []string{"--token-file", flag}, "Bearer of-flag"},
		{"a job that is not to say who it is", job("PYLOK_ADDRESS", secure, "PYLOK_CA", authority.CertFile, "PYLOK_CI_TOKEN", "off"), nil, ""},
		{"a job without TLS", job("PYLOK_ADDRESS", plain), nil, ""},
		{"a job without TLS that is meant", job("PYLOK_ADDRESS", plain), []string{"--insecure"}, ""},
		{"a job with a wrong switch", job("PYLOK_ADDRESS", secure, "PYLOK_CA", authority.CertFile), []string{"--ci-token", "on"}, `--ci-token is "on"; it can be auto or off`},
		{"no such context", nil, []string{"--context", "prd"}, `there is no context "prd" in `},
		{"no such file", nil, append(ca, "--address", secure, "--token-file", "/nowhere/token"), "--token-file: stat /nowhere/token"},
		{"no switch", map[string]string{"PYLOK_TLS": "yes please"}, nil, `PYLOK_TLS is "yes please"; it can be true or false`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("PYLOK_ADDRESS", "")
			for name, value := range test.variables {
				t.Setenv(name, value)
			}
			got := run1(t, append([]string{"info", "-o", "json"}, test.args...)...)
			if test.want == "" || strings.HasPrefix(test.want, "Bearer") {
				end := `"`
				if strings.HasSuffix(test.want, "eyJ") {
					end = ""
				}
				got.want(t, exitDone, `"caller":"`+test.want+end)
				return
			}
			got.want(t, exitUsage, test.want)
		})
	}
	t.Run("under run", func(t *testing.T) { // the settings that a command under run, or of watch --exec, has
		other := strings.Replace(secure, "127.0.0.1", "localhost", 1)
		t.Setenv("PYLOK_ADDRESS", "")
		for _, test := range []struct {
			context string
			args    []string
			want    string // the file with the token
		}{
			{"home", append(ca, "--address", other), ""}, // and so the command must not either
			{"home", nil, filepath.Join(home, "home.token")},
			{"", []string{"--context", "prod"}, filepath.Join(dir, "prod.token")},
			{"home", []string{"--context", "prod"}, filepath.Join(dir, "prod.token")},
			{"", []string{"--context", "prod", "--address", other}, filepath.Join(dir, "prod.token")},
			{"", []string{"--context", "prod", "--token-file", flag}, flag},
			{"", []string{"--context", "open"}, ""},
		} {
			t.Run(fmt.Sprint(test.context, test.args), func(t *testing.T) {
				t.Setenv("PYLOK_CONTEXT", test.context)
				read := func(args []string) (*settings, string) {
					flags := pflag.NewFlagSet("", pflag.ContinueOnError)
					addConnectionFlags(flags)
					if err := flags.Parse(args); err != nil {
						t.Fatal(err)
					}
					s, err := readSettings(flags)
					if err != nil {
						t.Fatal(err)
					}
					return s, s.of(tokenSetting).value
				}
				s, token := read(test.args)
				p := &program{settings: s, address: s.of(addressSetting).value}
				for _, variable := range append(p.handedOn(), [2]string{"PYLOK_ADDRESS", p.address}) {
					t.Setenv(variable[0], variable[1])
				}
				inner, innerToken := read(nil)
				if token != test.want || innerToken != test.want || inner.of(addressSetting).value != p.address || inner.of(caSetting).value != s.of(caSetting).value {
					t.Errorf("token of %q at %s, and in the command of %q at %s; want %q for both", token, p.address, innerToken, inner.of(addressSetting).value, test.want)
				}
			})
		}
	})
	t.Run("the commands", func(t *testing.T) {
		run1(t, "context").want(t, exitDone, "  home  "+secure+"\n", "* prod  ")
		run1(t, "context", "home").want(t, exitDone)
		text, err := os.ReadFile(filepath.Join(dir, "config.yaml"))
		if err != nil || !strings.HasPrefix(string(text), "# servers\ndefault: home # for now\n") || !strings.Contains(string(text), "token_file: ~/home.token") {
			t.Errorf("the file is now (%v)\n%s", err, text)
		}
		run1(t, "context", "-o", "json").want(t, exitDone, `"default":"home"`, `"token_file":"`+home+`/home.token"`)
		run1(t, "context", "x").want(t, exitUsage, `there is no context "x"`)
	})
}

// run1 runs the command as it stands.
func run1(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr strings.Builder
	code := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// TestOlderServer: a server that does not know a request is older, and has not failed.
func TestOlderServer(t *testing.T) {
	address, _ := serve(t, mirror{})
	run1(t, "--address", address, "may", "view", "a").want(t, exitFailed, "does not know May: it is older than this client")
}

// older answers as a server does that knows one kind of hold.
type older struct {
	pylokv1.UnimplementedLockServiceServer
	ended chan uint64 // the tokens that come back
}

func (o older) Lock(_ context.Context, request *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	return &pylokv1.LockResponse{Lock: &pylokv1.Lock{Name: request.GetName(), State: pylokv1.LockState_LOCK_STATE_LOCKED, Token: 7, Holder: request.GetHolder()}}, nil
}

func (o older) Unlock(_ context.Context, request *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	o.ended <- request.GetToken()
	return &pylokv1.UnlockResponse{}, nil
}

// TestOlderServerGrants: a hold of a kind that was not asked for is given back, and what
// an older server does not know at all is said so.
func TestOlderServerGrants(t *testing.T) {
	server := older{ended: make(chan uint64, 1)}
	address, _ := serve(t, server)
	for _, test := range []struct{ args, want string }{
		{"freeze prod", "does not know tree locks: it is older than this client"},
		{"lock a --shared", "does not know shared holds: it is older than this client"},
		{"lock a --ttl 5m --on-expiry keep", "does not know on_expiry KEEP: it is older than this client"},
		{"run a --shared", "does not know shared holds: it is older than this client"},
	} {
		args := append(strings.Fields(test.args), "--address", address)
		if args[0] == "run" {
			args = append(args, "--", "true")
		}
		got := run1(t, args...)
		got.want(t, exitFailed, test.want)
		select {
		case token := <-server.ended:
			if token != 7 {
				t.Errorf("%s: the hold with token %d comes back, want 7", test.args, token)
			}
		default:
			t.Errorf("%s: the hold is not given back", test.args)
		}
	}
	for _, args := range []string{"lock a b", "hand-over a --token 7 --to b", "ask a --msg x", "dismiss a 1 --reason x"} {
		run1(t, append(strings.Fields(args), "--address", address)...).want(t, exitFailed, "it is older than this client")
	}
}

// TestConfigFile: what is wrong in the file is named by its line, and is no matter to a
// command that does not need the file.
func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("PYLOK_ADDRESS", "")
	if err := os.Mkdir(filepath.Join(dir, "pylok"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pylok", "config.yaml")
	for _, test := range []struct{ text, want string }{
		{"contexts:\n  a:\n    adress: x\n", `line 3: "adress" is no key of a context; there are address, tls`},
		{"context:\n  a: {}\n", `line 2: "context" is no key here; there are default and contexts`},
		{"contexts:\n  a:\n    tls: maybe\n", "line 3: tls can be true or false"},
		{"contexts:\n  a:\n    ca: [x]\n", "line 3: the value must be one text"},
		{"contexts:\n  a:\n    ca:\n", "line 3: the value must be one text"},
		{"contexts: [a]\n", "line 1: contexts must be a mapping"},
		{"contexts:\n  a: {}\n  a: {}\n", `line 3: "a" is there twice`},
		{"default: b\ncontexts:\n  a: {}\n", `line 1: default is "b", and contexts has none of that name`},
		{"a: b: c\n", "mapping values are not allowed"},
		{"contexts: {}\n---\n", "more than one document"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		run1(t, "info").want(t, exitUsage, "the config file: ", path, test.want)
		run1(t, "info", "--address", nowhere).want(t, exitUnreachable)
	}
	for _, text := range []string{"", "# nothing\n", "contexts:\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		run1(t, "context").want(t, exitDone, "there is no context in "+path)
	}
}

// TestRefusedCallers: who is not known, or may not, gets exit code 1 and what to do.
func TestRefusedCallers(t *testing.T) {
	address, _ := serve(t, mirror{refuse: refusal(t, codes.Unauthenticated, "UNAUTHENTICATED", "the token is not known here")})
	pylok(t, address, "info").want(t, exitFailed, "the token is not known here\nSay who you are with --token-file FILE")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := pylok(t, address, "info", "--insecure", "--token-file", token)
	got.want(t, exitFailed, "the token is not known here\nThe bearer token is that in "+token+" (--token-file).")
	if strings.Contains(got.stderr, "s3cret") {
		t.Errorf("the token is in %q", got.stderr)
	}
	denied, _ := serve(t, mirror{refuse: refusal(t, codes.PermissionDenied, "PERMISSION_DENIED", "unix:alice may not view a")})
	pylok(t, denied, "info").want(t, exitFailed, "pylok: unix:alice may not view a\n")
}
