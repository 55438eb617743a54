package service

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/pylok/pylok/lock"
)

// sequence is what pages are cut from: an RPC with those of its parameters that
// must stay the same from page to page. A page token is a position in it, after a
// checksum over both.
type sequence string

func listSequence(pattern lock.Pattern) sequence {
	return sequence("List " + pattern.String())
}

func historySequence(q lock.HistoryQuery) sequence {
	text := fmt.Sprintf("History %s %d", q.Pattern, q.After)
	if filters := (lock.HistoryQuery{Pattern: q.Pattern, After: q.After}); q != filters {
		text += fmt.Sprintf(" %s %s %v %t %q", q.AfterTime.Format(time.RFC3339Nano), q.BeforeTime.Format(time.RFC3339Nano), q.Cause, q.NewestFirst, q.Actor)
	}
	return sequence(text)
}

func (s sequence) checksum(position []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(s)), crc32.IEEETable, position)
}

func (s sequence) token(position []byte) string {
	token := binary.BigEndian.AppendUint32(nil, s.checksum(position))
	return base64.RawURLEncoding.EncodeToString(append(token, position...))
}

// position returns that of a token, and whether the token is one of s.
func (s sequence) position(token string) ([]byte, bool) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(text) < 4 || base64.RawURLEncoding.EncodeToString(text) != token || binary.BigEndian.Uint32(text) != s.checksum(text[4:]) {
		return nil, false
	}
	return text[4:], true
}

func (s sequence) afterName(name lock.Name) string {
	return s.token([]byte(name.String()))
}

// name returns the name to go on after: the zero Name for no token.
func (s sequence) name(token string) (lock.Name, error) {
	if token == "" {
		return lock.Name{}, nil
	}
	if position, ok := s.position(token); ok {
		if name, err := lock.ParseName(string(position)); err == nil {
			return name, nil
		}
	}
	return lock.Name{}, badPageToken()
}

func (s sequence) afterRevision(revision lock.Revision) string {
	return s.token(binary.AppendUvarint(nil, uint64(revision)))
}

// revision returns the revision to go on after: 0 for no token.
func (s sequence) revision(token string) (lock.Revision, error) {
	if token == "" {
		return 0, nil
	}
	if position, ok := s.position(token); ok {
		if revision, n := binary.Uvarint(position); n == len(position) {
			return lock.Revision(revision), nil
		}
	}
	return 0, badPageToken()
}

func badPageToken() error {
	return lock.Invalid("page_token", "it is not the next_page_token of a response to the same request; start again without one")
}
