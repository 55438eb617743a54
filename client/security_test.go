package client_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// TestSecurityMismatch: who speaks TLS to a server that does not, or the other way
// round, is told so.
func TestSecurityMismatch(t *testing.T) {
	certified := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	defer certified.Close()
	trust := &tls.Config{RootCAs: x509.NewCertPool()}
	trust.RootCAs.AddCert(certified.Certificate())
	withTLS := func(config *tls.Config) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
		pylokv1.RegisterLockServiceServer(server, pylokv1.UnimplementedLockServiceServer{})
		go server.Serve(listener)
		t.Cleanup(server.Stop)
		return listener.Addr().String()
	}
	plaintext, _ := serve(t, pylokv1.UnimplementedLockServiceServer{})
	hangsUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangsUp.Close()
	go func() {
		for {
			conn, err := hangsUp.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	certificates := certified.TLS.Certificates
	for _, test := range []struct {
		name    string
		address string
		config  *tls.Config
		want    error // nil: neither
	}{
		{"plaintext to TLS", withTLS(&tls.Config{Certificates: certificates}), nil, client.ErrServerSpeaksTLS},
		{"plaintext to TLS for those with certificates", withTLS(&tls.Config{Certificates: certificates, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}), nil, client.ErrServerSpeaksTLS},
		{"plaintext to HTTPS", certified.Listener.Addr().String(), nil, client.ErrServerSpeaksTLS},
		{"TLS to plaintext", plaintext, trust, client.ErrServerSpeaksPlaintext},
		{"TLS to TLS that is not trusted", withTLS(&tls.Config{Certificates: certificates}), &tls.Config{}, nil},
		{"plaintext to who hangs up", hangsUp.Addr().String(), nil, nil},
		{"TLS to who hangs up", hangsUp.Addr().String(), trust, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := client.Dial(test.address, client.Options{TLS: test.config})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, infoErr := c.Info(t.Context())
			_, watchErr := c.Service().Watch(t.Context(), &pylokv1.WatchRequest{})
			for call, err := range map[string]error{"Info": infoErr, "Watch": watchErr} {
				if _, ok := errors.AsType[*client.UnreachableError](err); !ok {
					t.Errorf("%s: got %v, want an UnreachableError", call, err)
				}
				for _, mismatch := range []error{client.ErrServerSpeaksTLS, client.ErrServerSpeaksPlaintext} {
					if got, want := errors.Is(err, mismatch), mismatch == test.want; got != want {
						t.Errorf("%s: %v: is it %q? %v, want %v", call, err, mismatch, got, want)
					}
				}
			}
		})
	}
}
