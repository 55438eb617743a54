package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/pylok/pylok/lock"
)

// Bearer is a token that proves who asks: whoever has it is its caller. It has nothing
// to do with the token of a hold, which is a number and no secret.
type Bearer struct {
	// Token is the secret, as it goes into a header: no white space in it.
	Token string
	// ExpireTime is when it ends, by the clock here; zero: the source is asked for each
	// call.
	ExpireTime time.Time
}

// BearerSource returns the Bearer for a call. It is asked again shortly before the last
// one ends, and when the server does not take it; by one call at a time. An error ends
// the call, unless the last one has not ended; it must not have the secret in it.
type BearerSource func(ctx context.Context) (Bearer, error)

// CredentialError says that a call was not made because its bearer token could not be
// had, or must not go to that server. Nothing was sent.
type CredentialError struct {
	// Err is why.
	Err error
}

// Error says why.
func (e *CredentialError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *CredentialError) Unwrap() error { return e.Err }

// earliest is how long before its end a Bearer is replaced at the earliest; one of a
// short life, when a quarter of it is left.
const (
	earliest      = 30 * time.Second
	lastPartOfAll = 4
)

// bearer gives the calls of one Client their token. It implements
// credentials.PerRPCCredentials.
type bearer struct {
	source    BearerSource
	plaintext bool // it may go over connections without TLS
	current   atomic.Pointer[currentBearer]
	turn      chan struct{} // has an element while the source is asked
}

type currentBearer struct {
	Bearer
	renewTime time.Time
}

func newBearer(source BearerSource, plaintext bool) *bearer {
	if source == nil {
		return nil
	}
	b := &bearer{source: source, plaintext: plaintext, turn: make(chan struct{}, 1)}
	b.current.Store(&currentBearer{})
	return b
}

// get returns a token that is not the one that the server has refused.
func (b *bearer) get(ctx context.Context, refused string) (string, error) {
	current, valid, renew := b.look(refused)
	if !renew {
		return current, nil
	}
	select {
	case b.turn <- struct{}{}:
	default:
		if valid { // whoever asks for the next one need not be waited for
			return current, nil
		}
		select {
		case b.turn <- struct{}{}:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer func() { <-b.turn }()
	if current, valid, renew = b.look(refused); !renew { // somebody else has asked meanwhile
		return current, nil
	}
	next, err := b.source(ctx)
	switch {
	case err != nil && valid:
		return current, nil
	case err != nil:
		return "", err
	}
	if err := checkBearer(next.Token); err != nil {
		return "", err
	}
	if next.ExpireTime.IsZero() {
		return next.Token, nil
	}
	next.ExpireTime = next.ExpireTime.Round(0) // on the wall clock, which counts suspend
	left := time.Until(next.ExpireTime)
	b.current.Store(&currentBearer{next, next.ExpireTime.Add(-min(earliest, left/lastPartOfAll))})
	return next.Token, nil
}

// look returns the present token, whether it can be used, and whether it is time for the
// next one.
func (b *bearer) look(refused string) (token string, valid, renew bool) {
	current, now := b.current.Load(), time.Now().Round(0)
	valid = current.Token != "" && current.Token != refused && now.Before(current.ExpireTime)
	return current.Token, valid, !valid || !now.Before(current.renewTime)
}

// checkBearer finds what cannot be a token, without a word of it.
func checkBearer(token string) error {
	if token == "" {
		return errors.New("the bearer token is empty")
	}
	if i := strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }); i >= 0 {
		return fmt.Errorf("the bearer token has a space or another character that no token has, at byte %d", i+1)
	}
	return nil
}

// attempt is one sending of a call: the token that it went out with, or why it did not.
type attempt struct {
	refused string // by the server, of the attempt before; empty: none
	token   string
	err     *CredentialError
}

type attemptKey struct{}

// begin returns the context for an attempt. Without a bearer there is nothing to note.
func (b *bearer) begin(ctx context.Context, refused string) (context.Context, *attempt) {
	a := &attempt{refused: refused}
	if b == nil {
		return ctx, a
	}
	return context.WithValue(ctx, attemptKey{}, a), a
}

// renewed reports whether an attempt that failed with err may succeed with another
// token, and there is one.
func (b *bearer) renewed(ctx context.Context, a *attempt, err error) bool {
	if b == nil || a.token == "" || !errors.Is(err, lock.ErrUnauthenticated) {
		return false
	}
	next, failed := b.get(ctx, a.token)
	return failed == nil && next != a.token
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b *bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		a = &attempt{}
	}
	info, _ := credentials.RequestInfoFromContext(ctx)
	err := b.mayGoOver(info.AuthInfo)
	if err == nil {
		a.token, err = b.get(ctx, a.refused)
	}
	if err != nil {
		a.err = &CredentialError{err}
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + a.token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: mayGoOver decides.
func (b *bearer) RequireTransportSecurity() bool { return false }

// mayGoOver returns why a token must not go over a connection; nil: it may.
func (b *bearer) mayGoOver(connection credentials.AuthInfo) error {
	switch connection := connection.(type) {
	case credentials.TLSInfo:
		return nil // Dial has looked whether it is verified
	case socketInfo:
		switch {
		case connection.err != nil:
			return fmt.Errorf("nobody knows who would get the bearer token: %w", connection.err)
		case connection.listener != 0 && int64(connection.listener) != int64(os.Geteuid()):
			return fmt.Errorf("the socket belongs to the user %d, and the bearer token goes only to root or to yourself: leave it out, for a socket knows who you are without", connection.listener)
		}
		return nil
	}
	if !b.plaintext {
		return errors.New("the connection is in plaintext, and the bearer token must not go over it")
	}
	return nil
}
