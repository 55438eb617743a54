package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// pemFile is what stands in a PEM file, with its path for what is said of it.
type pemFile struct {
	path   string
	text   []byte
	blocks []*pem.Block
}

// readPEM reads a PEM file. One that ends in the middle of a block, as while it is being
// written, is an error.
func readPEM(path string) (*pemFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &pemFile{path: path, text: text}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN ")) {
				return nil, fmt.Errorf("%s has a PEM block that is damaged or not complete", path)
			}
			return f, nil
		}
		f.blocks = append(f.blocks, block)
	}
}

const certificateBlock = "CERTIFICATE"

func isKey(block *pem.Block) bool { return strings.HasSuffix(block.Type, "PRIVATE KEY") }

func isEncrypted(block *pem.Block) bool {
	return isKey(block) && (block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"))
}

// certificates returns those of the file, one at the least.
func (f *pemFile) certificates() ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, block := range f.blocks {
		if block.Type != certificateBlock {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of %s cannot be read: %w", len(all)+1, f.path, err)
		}
		all = append(all, certificate)
	}
	switch {
	case len(all) > 0:
		return all, nil
	case slices.ContainsFunc(f.blocks, isKey):
		return nil, fmt.Errorf("%s has a key and no certificate", f.path)
	case len(f.text) == 0:
		return nil, fmt.Errorf("%s is empty", f.path)
	}
	return nil, fmt.Errorf("%s has no certificate in PEM; one in DER becomes PEM with `openssl x509 -inform der -in FILE -out FILE`", f.path)
}

// checkKey returns what is wrong with the file as a key's.
func (f *pemFile) checkKey() error {
	switch i := slices.IndexFunc(f.blocks, isKey); {
	case i >= 0 && isEncrypted(f.blocks[i]):
		return fmt.Errorf("the key in %s is encrypted, and a server has nobody to ask for the passphrase: decrypt it with `openssl pkey -in FILE -out FILE`, to where nobody else may read it", f.path)
	case i >= 0:
		return nil
	case len(f.blocks) > 0:
		return fmt.Errorf("%s has no private key; it has %s", f.path, strings.ToLower(f.blocks[0].Type))
	case len(f.text) == 0:
		return fmt.Errorf("%s is empty", f.path)
	}
	return fmt.Errorf("%s has no private key in PEM; one in DER becomes PEM with `openssl pkey -inform der -in FILE -out FILE`", f.path)
}

// readPair reads a server's certificate, followed by those that vouch for it, and its key.
func readPair(certPath, keyPath string) (*tls.Certificate, []*x509.Certificate, error) {
	certFile, err := readPEM(certPath)
	if err != nil {
		return nil, nil, err
	}
	keyFile, err := readPEM(keyPath)
	if err != nil {
		return nil, nil, err
	}
	chain, err := certFile.certificates()
	keyErr := keyFile.checkKey()
	if err != nil && keyErr != nil && slices.ContainsFunc(certFile.blocks, isKey) && len(keyFile.blocks) > 0 && keyFile.blocks[0].Type == certificateBlock {
		return nil, nil, fmt.Errorf("%s is a key and %s a certificate: the two files are swapped", certPath, keyPath)
	}
	if err := errors.Join(err, keyErr); err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(certFile.text, keyFile.text)
	if err != nil {
		return nil, nil, fmt.Errorf("the key %s does not go with the certificate %s: %w", keyPath, certPath, err)
	}
	leaf := chain[0]
	pair.Leaf = leaf
	switch {
	case len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0:
		return nil, nil, fmt.Errorf("the certificate %s has no subject alternative name, and clients do not look at the common name %q: have it issued with the server's name or address as one (DNS:NAME, IP:ADDRESS)", certPath, leaf.Subject.CommonName)
	case len(leaf.ExtKeyUsage) > 0 && !slices.ContainsFunc(leaf.ExtKeyUsage, isForServers):
		return nil, nil, fmt.Errorf("the certificate %s is not for servers: its extended key usage lacks serverAuth, so clients refuse it", certPath)
	}
	return &pair, chain, nil
}

func isForServers(usage x509.ExtKeyUsage) bool {
	return usage == x509.ExtKeyUsageServerAuth || usage == x509.ExtKeyUsageAny
}

// readAuthorities reads the certificates of those who may vouch for others.
func readAuthorities(path string) (*x509.CertPool, []*x509.Certificate, error) {
	file, err := readPEM(path)
	if err != nil {
		return nil, nil, err
	}
	all, err := file.certificates()
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	for i, certificate := range all {
		if !certificate.IsCA {
			return nil, nil, fmt.Errorf("certificate %d of %s, %q, is none of a certificate authority, so it vouches for nobody", i+1, path, certificate.Subject)
		}
		pool.AddCert(certificate)
	}
	return pool, all, nil
}
