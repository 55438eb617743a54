// Package client is the Go client of pylok.
//
// [Dial] makes a [Client], and [Client.Acquire] a [Hold]: a lock that stays held,
// because the Hold renews it, until its Release or its loss, which ends the work that
// is bound to it and says why.
//
//	c, err := client.Dial("", client.Options{}) // this machine's server
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	hold, err := c.Acquire(ctx, "lb/server-1", client.WithWait(time.Minute))
//	if err != nil {
//		return err
//	}
//	defer hold.Release(ctx)
//	work, cancel := hold.Bind(ctx) // ends with ctx, and with the hold
//	defer cancel()
//	return deploy(work, hold.Token())
//
// # Fencing
//
// No lease can exclude by itself. A process that stops for longer than its ttl (a
// suspended machine, a long page fault, a SIGSTOP, a write that is on its way through
// a slow network) is the holder no more, does not know it yet, and goes on writing
// while somebody else holds the lock. The Context of a Hold makes that rare. What
// makes it harmless is the resource: it keeps the highest token that it has seen and
// refuses every write with a lower one. Tokens only ever increase, over all locks of a
// server, for ever.
//
//	// Write is refused to a holder that has lost its lock.
//	func (a *account) Write(token lock.Token, amount int) error {
//		a.mu.Lock()
//		defer a.mu.Unlock()
//		if token < a.highest {
//			return fmt.Errorf("token %d is stale: %d has written", token, a.highest)
//		}
//		a.highest, a.amount = token, amount
//		return nil
//	}
//
// In SQL it is one more condition: UPDATE account SET amount = $1, token = $2 WHERE
// id = $3 AND token <= $2, and a look at whether a row was changed. Where a resource
// cannot check, the lock keeps honest processes apart most of the time, and that is
// all it does. The example Fencing is the whole program.
//
// # More than one lock
//
// [Client.AcquireSet] takes several locks, all or none, and [WithChoice] some of a pool,
// whichever are free first. A [Set] renews and releases its Holds together; the work that is
// bound to it ends with the first that is lost, and the others stay until its Release. Who
// takes one lock after the other instead can meet somebody who does the reverse.
//
//	set, err := c.AcquireSet(ctx, []string{"db/a", "db/b"}, client.WithChoice(1, "slot/1", "slot/2", "slot/3"))
//	if err != nil {
//		return err
//	}
//	defer set.Release(ctx)
//
// [WithShared] and [WithLimit] take a lock together with others, as readers and semaphores
// do; [WithTree] takes all that is below a name, which is a freeze; a hold of [WithKeep] does
// not end with its time but becomes stale, until somebody has looked.
//
// # Other people
//
// Somebody may ask the holder of a lock to let go: Hold.Asked tells. Hold.AtRisk tells that
// renewals have failed for so long that the hold may be lost. Both are channels, closed at
// the end of the hold, and nothing happens by itself:
//
//	for ask := range hold.Asked() {
//		log.Printf("%s asks for %s: %s", ask.Actor, ask.Name, ask.Message)
//	}
//
// [Client.HandOver] has a hold go on under another holder, without a gap; a Hold that has it
// is lost then, and its LostError says to whom. [Client.Adopt] makes a Hold for a hold that
// exists, so that a job goes on under a lock that whoever started it has.
//
// # Errors
//
// Every error of a call is one of these:
//
//   - a [*lock.Error] when the server refused: errors.Is(err, lock.ErrLockHeld)
//     and its like tell why, errors.As finds the lock's present state;
//   - an [*UnreachableError] when there was no answer; where that is for TLS, it is
//     ErrServerSpeaksTLS or another of its kind;
//   - a [*CredentialError] when the bearer token could not be had, or must not go to
//     that server, so that nothing was sent;
//   - one that wraps context.Canceled or context.DeadlineExceeded when the call's
//     context ended first; a Renew or an Unlock may have been carried out;
//   - an [*OutcomeUnknownError] when a lock may have been taken and no server tells;
//   - an [*UnsupportedError] when the server is older and does not know what was asked;
//   - a [*LostError] from the methods of a Hold that is lost;
//   - else a gRPC status, for faults that are nobody's business to handle.
//
// # Who asks
//
// Over a Unix socket the server knows who asks from the kernel. Over TCP it knows by a
// client certificate in Options.TLS, which TLSFiles makes of files, or by Options.Bearer:
// a secret in a file ([TokenFile]), the OIDC token of a CI job ([JobToken]), or what a
// function of yours returns. A token is fetched anew shortly before its end, and once more
// when the server does not take it, so that a Hold and a Watch go on for longer than their
// tokens. It goes over TLS that is checked, and to a socket on which root or this user
// listens, and nowhere else unless Options.Insecure says so.
//
//	bearer, ok := client.JobToken("locks.example.com")
//	if !ok {
//		bearer = client.TokenFile("/etc/deploy/pylok.token")
//	}
//	c, err := client.Dial("locks.example.com:5625", client.Options{TLS: &tls.Config{}, Bearer: bearer})
//
// [Client.Info] tells whom the server takes one for, and the caller of a lock is whose it
// is, whatever its holder says.
//
// # Sending again
//
// The methods of Client, but not those of [Client.Service], bridge the restart of a
// server: a request without an answer is sent again for up to 10 s, or as Options.Patience
// says, and a request that stands in line until its wait is over, where that cannot do
// anything twice. Lock is safe by its request id; Renew, and Unlock with a token, by the
// token; what only reads always is. An Unlock without a token is sent again only if it
// certainly never arrived, and so is an Ask. LockSet is as Lock; UnlockSet, RenewSet, HandOver
// and Dismiss are safe by tokens, request id and place. A server that has never answered this Client is not waited
// for: its address may be wrong. A server that says that the caller asks too often
// (lock.ErrRateLimited) is asked again for as long, each time when it says. Options.OnTrouble is told while a server is waited for.
//
// # Leaving
//
// A call for a lock whose context ends may have been granted the lock at that moment.
// Then Lock and Acquire ask the server, release the lock, and only then return, after
// 5 s at most: an error of theirs means that nothing is held, unless it is an
// OutcomeUnknownError. So do LockSet and AcquireSet. A Client with Options.ReleaseAll
// releases at its Close what Acquire and AcquireSet took with it, but nothing that it adopted.
package client
