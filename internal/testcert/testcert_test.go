package testcert_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/pylok/pylok/internal/testcert"
)

// TestAuthority: what an authority signs is what the test asked for, holds against that
// authority and not against another, and for its use alone.
func TestAuthority(t *testing.T) {
	authority, other := testcert.New(t), testcert.New(t)
	end := time.Now().Add(3 * time.Second).Truncate(time.Second)
	server := authority.Server(testcert.Options{})
	client := authority.Client(testcert.Options{CommonName: "ci", DNS: []string{"ci.example.com"}, URIs: []string{"spiffe://corp/deploy/web"}, NotAfter: end})
	if c := client.Certificate; c.Subject.CommonName != "ci" || c.DNSNames[0] != "ci.example.com" || c.URIs[0].String() != "spiffe://corp/deploy/web" || !c.NotAfter.Equal(end) {
		t.Errorf("the client's certificate is for %v %v %v until %v", c.Subject, c.DNSNames, c.URIs, c.NotAfter)
	}
	for _, test := range []struct {
		name  string
		pair  *testcert.Pair
		roots *testcert.Authority
		usage x509.ExtKeyUsage
		host  string
		at    time.Time
		want  bool
	}{
		{"a server", server, authority, x509.ExtKeyUsageServerAuth, "127.0.0.1", time.Time{}, true},
		{"a client", client, authority, x509.ExtKeyUsageClientAuth, "", time.Time{}, true},
		{"a client that has ended", client, authority, x509.ExtKeyUsageClientAuth, "", end.Add(time.Second), false},
		{"a server as a client", server, authority, x509.ExtKeyUsageClientAuth, "", time.Time{}, false},
		{"of another authority", client, other, x509.ExtKeyUsageClientAuth, "", time.Time{}, false},
	} {
		_, err := test.pair.Certificate.Verify(x509.VerifyOptions{Roots: test.roots.Pool(), DNSName: test.host, CurrentTime: test.at, KeyUsages: []x509.ExtKeyUsage{test.usage}})
		if (err == nil) != test.want {
			t.Errorf("%s: got %v, want it to hold: %v", test.name, err, test.want)
		}
	}
	if _, err := tls.LoadX509KeyPair(client.CertFile, client.KeyFile); err != nil {
		t.Error(err)
	}
}
