package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (p *program) unlockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unlock [NAME]",
		Short: "Release a lock, or break somebody else's hold on it",
		Long: `Release a lock. Without --token it releases a hold that is anonymous or has your
--holder; anything else is exit code 4, and so is a lock that is free.

` + shellHelp + `

Data are a closing message here: whoever watches, and the history, see them in
place of the data of the hold.

` + dataHelp,
		Example: `  pylok unlock lb/server-1 --msg 'canary complete' --data status=READY
  pylok unlock lb/server-1 --token 42
  trap 'pylok unlock' EXIT
  pylok unlock lb/server-1 --force --reason 'alice is on holiday'`,
		Args:              ownNameArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	token := cmd.Flags().Uint64("token", 0, "release exactly the hold with this token `N`")
	holder := p.holderFlag(cmd, "who releases the lock, as `TEXT`", "you@host", client.DefaultHolder)
	cmd.Flags().Bool("ensure-lock", false, "fail if the lock is free; so it always does")
	force := cmd.Flags().Bool("force", false, "break the hold, whoever holds the lock (with --token: only that one)")
	reason := cmd.Flags().String("reason", "", "why, as `TEXT` for the history; --force needs it")
	data := addDataFlags(cmd, "the closing message")
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *force && strings.TrimSpace(*reason) == "" {
			return usagef("--force breaks somebody's hold: say why with --reason '...'")
		}
		name, token, err := ownHold(cmd, args, *token)
		if err != nil {
			return err
		}
		request := &pylokv1.UnlockRequest{
			Name:   name,
			Token:  token,
			Holder: holder(),
			Force:  *force,
			Reason: *reason,
		}
		if request.Data, err = data.read(ctx, p.stdin); err != nil {
			return err
		}
		p.changing = true
		response, err := call(ctx, p, c.Service().Unlock, request)
		if err != nil {
			return p.explainNotHeld(err, request.GetName(), token, holder())
		}
		return untold(request.GetName()+" is unlocked", p.print(response,
			func() map[string]any { return unlockDocument(response.GetLock(), request) },
			func(s style) string { return s.unlockBlock(response) }))
	})
	return cmd
}

// unlockDocument returns a lock that was released as the original library's
// dictionary: with the closing message if there was one.
func unlockDocument(l *pylokv1.Lock, request *pylokv1.UnlockRequest) map[string]any {
	released := &pylokv1.Lock{Data: l.GetData()}
	if request.GetData() != nil {
		released.Data = request.GetData()
	}
	return lockDocument(released, "unlock")
}

// explainNotHeld says of a hold that is not the caller's whose it is and how to go
// on.
func (p *program) explainNotHeld(err error, name string, token uint64, holder string) error {
	if errors.Is(err, lock.ErrNotLocked) {
		problem := name + " is not locked; nothing was released"
		if token != 0 {
			problem = fmt.Sprintf("%s is not locked: the hold with token %d is over", name, token)
		}
		return &exitError{exitNotHeld, problem}
	}
	l, ok := holdIn(err)
	if !ok || !errors.Is(err, lock.ErrNotHolder) {
		return err
	}
	facts := p.style().holdRows(l)
	sameHold := l.Token == lock.Token(token) || token == 0 && l.Holder == holder
	follow := [2]string{"follow it", "pylok watch " + name}
	if refusal, ok := errors.AsType[*lock.Error](err); ok && l.Caller != "" && sameHold {
		return refusedHold(exitNotHeld, refusal.Message, facts, follow, breakIt(l)) // no token makes it the caller's
	}
	if token != 0 {
		problem := fmt.Sprintf("the hold with token %d is over; %s is now held with token %d", token, name, l.Token)
		return refusedHold(exitNotHeld, problem, facts, follow, breakIt(l))
	}
	problem := fmt.Sprintf("%s is not held by %s", name, holderOf(holder))
	if holder == "" {
		problem = name + " is not an anonymous hold"
	}
	return refusedHold(exitNotHeld, problem, facts,
		[2]string{"if it is yours", "pylok unlock " + name + " --token N"}, follow, breakIt(l))
}
