package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// TokenPrefix is what every bearer token of pylok begins with, so that people and scanners
// know one when they see it.
const TokenPrefix = "pylok_"

// NewToken returns a new bearer token, which is 256 random bits, and what stands for it in
// the access file: sha256: and the SHA-256 of the token in hexadecimal.
func NewToken() (token, hash string) {
	var bits [32]byte
	rand.Read(bits[:]) // never fails
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(bits[:])
	sum := sha256.Sum256([]byte(token))
	return token, "sha256:" + hex.EncodeToString(sum[:])
}
