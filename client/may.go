package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// Verb is what the rules of a server allow to do to a lock, as its access file has it.
type Verb string

// The verbs.
const (
	View   Verb = "view"   // see the lock: Status, List, Watch, History
	Take   Verb = "lock"   // take it, wait for it, renew and release one's own hold of it
	Break  Verb = "break"  // end or replace the hold of somebody else
	Freeze Verb = "freeze" // freeze the lock and all below it, and go through a freeze
	Admin  Verb = "admin"  // what concerns the server and no lock
)

// Permission is what a server's rules say of a caller, a Verb and a lock.
type Permission struct {
	// Allowed reports whether they allow it. A server without rules allows everything.
	Allowed bool
	// Caller is whom it concerns; empty: the server does not tell callers apart.
	Caller string
	// Groups are those of the caller, as far as the server knows them.
	Groups []string
	// Why is a sentence that says which rule allows it, or who would be allowed.
	Why string
}

// May asks whether the server's rules allow something to whoever c is, or, where as is not
// empty, to the caller of that name or to `group:NAME`, which needs Admin
// (lock.ErrPermissionDenied). For Admin the name is empty. The server looks at no lock.
func (c *Client) May(ctx context.Context, verb Verb, name, as string) (Permission, error) {
	number := pylokv1.Verb_value["VERB_"+strings.ToUpper(string(verb))]
	if number == 0 || verb != Verb(strings.ToLower(string(verb))) {
		return Permission{}, lock.Invalid("verb", fmt.Sprintf("%q is no verb; there are view, lock, break, freeze and admin", verb))
	}
	var response *pylokv1.MayResponse
	err := c.retry(ctx, time.Time{}, true, func(bool) (err error) {
		response, err = c.service.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb(number), Name: name, As: as})
		return err
	})
	if err != nil {
		return Permission{}, err
	}
	return Permission{
		Allowed: response.GetAllowed(),
		Caller:  response.GetCaller(),
		Groups:  response.GetGroups(),
		Why:     response.GetWhy(),
	}, nil
}
