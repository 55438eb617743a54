package main

import (
	"cmp"
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (p *program) renewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew [NAME --token N]",
		Short: "Push the end of a hold out, or replace its data",
		Long: `Push the end of a hold out. Without --ttl and --expire a hold with a ttl gets all of
it again, and any other keeps the end that it has. Data, when given, replace all
that the hold has. A hold that is over is exit code 4: stop the work that it
protects.

` + shellHelp + `

` + dataHelp,
		Example: `  pylok renew lb/server-1 --token 42
  pylok renew lb/server-1 --token 42 --expire 'tomorrow 09:00'`,
		Args:              ownNameArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	token := cmd.Flags().Uint64("token", 0, "the token `N` of the hold; pylok lock prints it")
	holder := p.holderFlag(cmd, "who renews, as `TEXT` for the history", "you@host", client.DefaultHolder)
	expiry := addExpiryFlags(cmd)
	data := addDataFlags(cmd, "the new data")
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		holds, err := ownHolds(cmd, args, *token)
		if err != nil {
			return err
		}
		if len(holds) > 1 {
			return p.renewSet(ctx, c, holds, holder(), expiry, data)
		}
		name, token := holds[0].Name.String(), uint64(holds[0].Token)
		if token == 0 {
			return usagef("give the token of your hold: pylok renew %s --token N (pylok lock printed it)", name)
		}
		request := &pylokv1.RenewRequest{Name: name, Token: token, Holder: holder()}
		if request.Data, err = data.read(ctx, p.stdin); err != nil {
			return err
		}
		ttl, expireTime, err := expiry.read(p.now())
		switch {
		case err != nil:
			return err
		case ttl != nil:
			request.Expiry = &pylokv1.RenewRequest_Ttl{Ttl: ttl}
		case expireTime != nil:
			request.Expiry = &pylokv1.RenewRequest_ExpireTime{ExpireTime: expireTime}
		}
		p.changing = true
		response, err := call(ctx, p, c.Service().Renew, request)
		if refusal, ok := errors.AsType[*lock.Error](err); ok && refusal.Reason == lock.ErrInvalidArgument && refusal.Field == "ttl" && ttl == nil {
			return usagef("%s has no ttl that could begin again; say with --ttl or --expire when it is to end", name)
		}
		if err != nil {
			return p.explainNotHeld(err, name, token, "")
		}
		return untold(request.GetName()+" is renewed", p.print(response,
			func() map[string]any { return lockDocument(response.GetLock(), "lock") },
			func(s style) string { return s.lockBlock(response.GetLock()) }))
	})
	return cmd
}

// renewSet renews the holds of a set. That one is over is exit code 4.
func (p *program) renewSet(ctx context.Context, c *client.Client, holds []lock.HoldRef, holder string, expiry *expiryFlags, data *dataFlags) error {
	request := &pylokv1.RenewSetRequest{Holds: holdRefs(holds), Holder: holder}
	if fields, err := data.read(ctx, p.stdin); err != nil || fields != nil {
		return cmp.Or(err, usagef("the data of a set cannot be replaced together; renew one of its locks, by NAME and --token"))
	}
	ttl, expireTime, err := expiry.read(p.now())
	switch {
	case err != nil:
		return err
	case ttl != nil:
		request.Expiry = &pylokv1.RenewSetRequest_Ttl{Ttl: ttl}
	case expireTime != nil:
		request.Expiry = &pylokv1.RenewSetRequest_ExpireTime{ExpireTime: expireTime}
	}
	p.changing = true
	response, err := call(ctx, p, c.Service().RenewSet, request)
	if err != nil {
		return err
	}
	var kept []*pylokv1.Lock
	var lost error
	for _, answer := range response.GetAnswers() {
		if answer.GetReason() == "" {
			kept = append(kept, answer.GetLock())
		} else if lost == nil {
			lost = &exitError{exitNotHeld, printable(answer.GetMessage())}
		}
	}
	if err := p.print(response, nil, func(s style) string { return s.lockBlocks(kept) }); err != nil {
		return untold("what still stands is renewed", err)
	}
	return lost
}
