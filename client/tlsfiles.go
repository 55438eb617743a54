package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSFiles are the PEM files of a connection with TLS. The zero TLSFiles trust the CAs of
// the system and show no certificate.
type TLSFiles struct {
	// CA has the certificates of the CAs that may vouch for the server. Empty: those that
	// the system trusts.
	CA string
	// Certificate and Key are the client's certificate, followed by those that vouch for
	// it, and its key: both or none. They are read again for each connection, so that they
	// can be replaced; both at a time, in files with other names that are moved into place.
	Certificate, Key string
}

// Config returns what Options.TLS takes. It reads all files once to see whether they are
// usable.
func (f TLSFiles) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", f.CA)
		}
	}
	switch {
	case f.Certificate == "" && f.Key == "":
		return config, nil
	case f.Certificate == "" || f.Key == "":
		return nil, errors.New("a client's certificate and its key go together")
	}
	if _, err := f.certificate(); err != nil {
		return nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.certificate() }
	return config, nil
}

func (f TLSFiles) certificate() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, fmt.Errorf("the certificate %s with the key %s cannot be used: %w", f.Certificate, f.Key, err)
	}
	return &pair, nil
}
