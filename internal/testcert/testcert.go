// Package testcert makes real certificates for tests: authorities, and certificates of
// servers and clients that they sign.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	*Pair
	t testing.TB
}

// Pair is a certificate and its key, in memory and in PEM files of a temporary directory
// of its own.
type Pair struct {
	// Certificate is the parsed certificate.
	Certificate *x509.Certificate
	// CertPEM and KeyPEM are what stands in CertFile and in KeyFile, which only the owner
	// may read.
	CertPEM, KeyPEM   []byte
	CertFile, KeyFile string

	key *ecdsa.PrivateKey
}

// Options are what a test may choose of a certificate. The zero value is one with no name
// at all, valid from an hour ago for 30 days.
type Options struct {
	// CommonName is the CN of its subject.
	CommonName string
	// DNS, IPs and URIs are its subject alternative names. A URI such as
	// spiffe://corp/deploy/web is what SPIFFE names a workload by.
	DNS  []string
	IPs  []net.IP
	URIs []string
	// NotBefore and NotAfter are when it is valid, to the second.
	NotBefore, NotAfter time.Time
}

// New returns a new authority, which vouches for itself, for a year.
func New(t testing.TB) *Authority {
	t.Helper()
	return &Authority{t: t, Pair: issue(t, Options{CommonName: "test authority", NotAfter: time.Now().AddDate(1, 0, 0)}, nil, func(c *x509.Certificate) {
		c.IsCA = true
		c.KeyUsage = x509.KeyUsageCertSign
	})}
}

// Pool returns a pool with the authority alone in it, to trust what it signs.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// Server returns a certificate for servers. Without a DNS name or an address in the
// options it is for localhost, 127.0.0.1 and ::1.
func (a *Authority) Server(options Options) *Pair {
	a.t.Helper()
	if len(options.DNS) == 0 && len(options.IPs) == 0 {
		options.DNS = []string{"localhost"}
		options.IPs = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return issue(a.t, options, a.Pair, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// Client returns a certificate for clients.
func (a *Authority) Client(options Options) *Pair {
	a.t.Helper()
	return issue(a.t, options, a.Pair, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
}

// TLS returns the pair as a tls.Config takes it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Certificate.Raw}, PrivateKey: p.key, Leaf: p.Certificate}
}

// issue makes a certificate that signer signs, or that signs itself.
func issue(t testing.TB, options Options, signer *Pair, set func(*x509.Certificate)) *Pair {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("making a certificate: %v", err)
		}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	fail(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: options.CommonName},
		DNSNames:              options.DNS,
		IPAddresses:           options.IPs,
		NotBefore:             options.NotBefore,
		NotAfter:              options.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	}
	for _, text := range options.URIs {
		uri, err := url.Parse(text)
		fail(err)
		template.URIs = append(template.URIs, uri)
	}
	set(template)
	p := &Pair{key: key}
	if signer == nil {
		signer = &Pair{key: key, Certificate: template}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.Certificate, &key.PublicKey, signer.key)
	fail(err)
	p.Certificate, err = x509.ParseCertificate(der)
	fail(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	fail(err)
	p.CertPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	p.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	dir := t.TempDir()
	p.CertFile, p.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	fail(os.WriteFile(p.CertFile, p.CertPEM, 0o600))
	fail(os.WriteFile(p.KeyFile, p.KeyPEM, 0o600))
	return p
}
