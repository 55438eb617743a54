// Package bearer makes bearer tokens for callers of pylok. The access file has only what
// stands for one, so that who reads it has no token.
package bearer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// Prefix is what every bearer token of pylok begins with, so that people and scanners
// know one when they see it.
const Prefix = "pylok_"

// New returns a new bearer token, which is 256 random bits, and what stands for it in
// the access file: sha256: and the SHA-256 of the token in hexadecimal.
func New() (token, hash string) {
	var bits [32]byte
	rand.Read(bits[:]) // never fails
	token = Prefix + base64.RawURLEncoding.EncodeToString(bits[:])
	sum := sha256.Sum256([]byte(token))
	return token, "sha256:" + hex.EncodeToString(sum[:])
}
