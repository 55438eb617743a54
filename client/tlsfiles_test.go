package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/internal/testcert"
)

// whoConnects answers Info with the name in the certificate of the connection.
type whoConnects struct {
	pylokv1.UnimplementedLockServiceServer
}

func (whoConnects) Info(ctx context.Context, _ *pylokv1.InfoRequest) (*pylokv1.InfoResponse, error) {
	from, _ := peer.FromContext(ctx)
	return &pylokv1.InfoResponse{Caller: from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Subject.CommonName}, nil
}

// TestTLSFiles: a certificate that is replaced counts for the next connection; an older
// TLS than 1.3 only where it is asked for.
func TestTLSFiles(t *testing.T) {
	authority := testcert.New(t)
	serveTLS := func(versions uint16) string {
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{authority.Server(testcert.Options{}).TLS()},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    authority.Pool(),
			MaxVersion:   versions,
		})))
		pylokv1.RegisterLockServiceServer(server, whoConnects{})
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go server.Serve(listener)
		t.Cleanup(server.Stop)
		return listener.Addr().String()
	}
	files := client.TLSFiles{
		CA:          authority.CertFile,
		Certificate: filepath.Join(t.TempDir(), "cert.pem"),
		Key:         filepath.Join(t.TempDir(), "key.pem"),
	}
	write := func(pair *testcert.Pair) {
		t.Helper()
		if err := errors.Join(os.WriteFile(files.Certificate, pair.CertPEM, 0o600), os.WriteFile(files.Key, pair.KeyPEM, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(authority.Client(testcert.Options{CommonName: "first"}))
	config, err := files.Config()
	if err != nil {
		t.Fatal(err)
	}
	address := serveTLS(0)
	for _, name := range []string{"first", "second"} {
		write(authority.Client(testcert.Options{CommonName: name}))
		if got, err := info(t, address, client.Options{TLS: config}); err != nil || got.Caller != name {
			t.Errorf("the server sees %q, %v; want %q", got.Caller, err, name)
		}
	}

	old := serveTLS(tls.VersionTLS12)
	config.MinVersion = 0
	if _, err := info(t, old, client.Options{TLS: config}); !errors.Is(err, client.ErrServerTooOld) {
		t.Errorf("TLS 1.2 without a word: %v, want ErrServerTooOld", err)
	}
	config.MinVersion = tls.VersionTLS12
	if _, err := info(t, old, client.Options{TLS: config}); err != nil {
		t.Errorf("TLS 1.2 that is asked for: %v", err)
	}

	for _, test := range []struct {
		files client.TLSFiles
		want  string
	}{
		{client.TLSFiles{CA: "/nowhere/ca.pem"}, "open /nowhere/ca.pem"},
		{client.TLSFiles{CA: os.DevNull}, "/dev/null has no certificate in PEM form"},
		{client.TLSFiles{Certificate: files.Certificate}, "go together"},
		{client.TLSFiles{Certificate: files.Certificate, Key: authority.KeyFile}, "cannot be used"},
	} {
		if _, err := test.files.Config(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want an error with %q", test.files, err, test.want)
		}
	}
}
