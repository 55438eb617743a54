package main

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// keyPair is the server's certificate and key, as their files were read last.
type keyPair struct {
	file, keyFile string
	current       atomic.Pointer[tls.Certificate]
}

// read reads the files. With an error the certificate stays what it is.
func (c *keyPair) read() error {
	pair, err := tls.LoadX509KeyPair(c.file, c.keyFile)
	if err != nil {
		return fmt.Errorf("the certificate %s with the key %s cannot be used: %w", c.file, c.keyFile, err)
	}
	c.current.Store(&pair)
	return nil
}

// config is TLS with the certificate as it is when a client connects.
func (c *keyPair) config() *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
		MinVersion:     tls.VersionTLS12,
	}
}
