package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (p *program) lockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock NAME",
		Short: "Take a lock",
		Long: `Take a lock. One that is held is refused with exit code 3, also when the holder has
the same name as you; --wait stands in line for it. A grant that cannot be told,
because the output cannot be written, is released again, and the exit code is 1; one
that comes as you interrupt is released too.

In a script, have just your own hold released when it ends. A second job that is
refused ends at the first line, and the lock of the first job is left alone:

  held=$(pylok lock NAME --shell) || exit
  eval "$held"                  # sets PYLOK_NAME and PYLOK_TOKEN
  trap 'pylok unlock' EXIT      # exactly that hold
  trap 'exit 1' HUP INT TERM    # for shells to which these are no EXIT

With --ttl, and pylok renew in between, a script that is killed leaves no lock behind
for good. pylok run does all of that around a command.

` + dataHelp,
		Example: `  pylok lock lb/server-1 --msg 'canary deployment' --data backend=App1 --data weight=0
  pylok lock db/orders --data-file ticket.yaml --ttl 30m --wait 5m
  pylok lock switch-7 --expire 'fri 18:00'
  held=$(pylok lock db/orders --ttl 1h --shell) || exit`,
		Args:              nameArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	data := addDataFlags(cmd, "the data")
	holder := p.holderFlag(cmd, "who takes the lock, as `TEXT`; empty: anonymous, so that anyone may release it", "you@host", client.DefaultHolder)
	expiry := addExpiryFlags(cmd)
	var wait duration
	cmd.Flags().Var(&wait, "wait", "stand in line this long for a lock that is held")
	ensureUnlock := cmd.Flags().Bool("ensure-unlock", false, "fail if the lock is held; so it always is, unless --overwrite is given")
	shell := cmd.Flags().Bool("shell", false, "print PYLOK_NAME and PYLOK_TOKEN for a shell to eval, and --address and the like if they are given")
	overwrite := cmd.Flags().Bool("overwrite", false, "replace a hold that is anonymous or has your --holder")
	must(cmd.RegisterFlagCompletionFunc("wait", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *ensureUnlock && *overwrite {
			return usagef("--ensure-unlock and --overwrite contradict each other; give one of them")
		}
		if *shell && cmd.Flags().Changed("output") {
			return usagef("--shell and --output are two forms of the output; give one of them")
		}
		request := &pylokv1.LockRequest{
			Name:      args[0],
			Holder:    holder(),
			RequestId: rand.Text(),
			Overwrite: *overwrite,
		}
		var err error
		if request.Data, err = data.read(ctx, p.stdin); err != nil {
			return err
		}
		ttl, expireTime, err := expiry.read(p.now())
		switch {
		case err != nil:
			return err
		case ttl != nil:
			request.Expiry = &pylokv1.LockRequest_Ttl{Ttl: ttl}
		case expireTime != nil:
			request.Expiry = &pylokv1.LockRequest_ExpireTime{ExpireTime: expireTime}
		}
		var response *pylokv1.LockResponse
		err = p.take(ctx, c, time.Duration(wait), func(wait time.Duration) (err error) {
			ctx, cancel := p.withTimeout(ctx, wait)
			defer cancel()
			request.Wait = durationpb.New(wait)
			response, err = c.LockMessage(ctx, request)
			return err
		})
		if err != nil {
			return p.explainHeld(err, time.Duration(wait))
		}
		if err := ctx.Err(); err != nil { // who asked has left
			return p.giveBack(ctx, c, response.GetLock(), err)
		}
		err = p.print(response,
			func() map[string]any { return lockDocument(response.GetLock(), "lock") },
			func(s style) string {
				if *shell {
					return shellCode(response.GetLock(), p.handedOn())
				}
				return s.lockBlock(response.GetLock())
			})
		if err != nil {
			return p.giveBack(ctx, c, response.GetLock(), err)
		}
		return nil
	})
	return cmd
}

// giveBackWithin is how long a lock that nobody will use may take to be released.
const giveBackWithin = 5 * time.Second

// giveBack releases a lock whose grant was not told to who asked for it, because of
// err, and returns the error to end with.
func (p *program) giveBack(ctx context.Context, c *client.Client, l *pylokv1.Lock, err error) error {
	name, nameErr := lock.ParseName(l.GetName())
	if nameErr != nil {
		return errors.Join(err, nameErr)
	}
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	_, failed := c.Unlock(release, lock.UnlockRequest{
		Name:   name,
		Token:  lock.Token(l.GetToken()),
		Reason: "the grant could not be told to who asked for it",
	})
	switch {
	case failed != nil && !errors.Is(failed, lock.ErrNotHolder) && !errors.Is(failed, lock.ErrNotLocked):
		return &exitError{failureCode(ctx), fmt.Sprintf("%s is locked with token %d, nobody was told, and it cannot be released: %v", name, l.GetToken(), failed)}
	case ctx.Err() != nil:
		return err
	}
	return &exitError{exitFailed, fmt.Sprintf("%s was granted, but that cannot be told: %v; it is released again", name, err)}
}

// explainHeld says of a lock that is held who holds it and how to go on.
func (p *program) explainHeld(err error, waited time.Duration) error {
	l, ok := holdIn(err)
	if !ok || !errors.Is(err, lock.ErrLockHeld) {
		return err
	}
	problem := l.Name.String() + " is locked"
	if waited > 0 {
		problem += ", still after waiting " + formatDuration(waited)
	}
	return refusedHold(exitHeld, problem, p.style().holdRows(l),
		[2]string{"wait for it", "pylok lock " + l.Name.String() + " --wait 5m"},
		[2]string{"follow it", "pylok watch " + l.Name.String()},
		breakIt(l))
}

// holdIn returns the hold that a refusal tells of.
func holdIn(err error) (lock.Lock, bool) {
	refusal, ok := errors.AsType[*lock.Error](err)
	if !ok || refusal.Lock == nil || !refusal.Lock.Held() {
		return lock.Lock{}, false
	}
	return *refusal.Lock, true
}

// breakIt is the way out that is always there.
func breakIt(l lock.Lock) [2]string {
	return [2]string{"break it", "pylok unlock " + l.Name.String() + " --force --reason '...'"}
}
