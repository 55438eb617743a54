package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (p *program) unlockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unlock [NAME]...",
		Short: "Release a lock, or break somebody else's hold on it",
		Long: `Release a lock. Without --token it releases a hold that is anonymous or has your
--holder; anything else is exit code 4, and so is a lock that is free.

` + shellHelp + `

With --set it releases what is left of the set that NAME was taken in. A stale hold, whose
time is over and that is kept until somebody has looked, is released with --stale.

Data are a closing message here: whoever watches, and the history, see them in
place of the data of the hold.

` + dataHelp,
		Example: `  pylok unlock lb/server-1 --msg 'canary complete' --data status=READY
  pylok unlock lb/server-1 --token 42
  trap 'pylok unlock' EXIT
  pylok unlock --set db/a
  pylok unlock prod/web --stale --reason 'looked: the deployment is whole'
  pylok unlock lb/server-1 --force --reason 'alice is on holiday'`,
		Args:              ownNamesArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	token := cmd.Flags().Uint64("token", 0, "release exactly the hold with this token `N`")
	holder := p.holderFlag(cmd, "who releases the lock, as `TEXT`", "you@host", client.DefaultHolder)
	cmd.Flags().Bool("ensure-lock", false, "fail if the lock is free; so it always does")
	force := cmd.Flags().Bool("force", false, "break the hold, whoever holds the lock (with --token: only that one)")
	set := cmd.Flags().Bool("set", false, "release what is left of the set that NAME was taken in")
	stale := cmd.Flags().Bool("stale", false, "release a stale hold, for you have looked")
	reason := cmd.Flags().String("reason", "", "why, as `TEXT` for the history; --force and --stale need it")
	data := addDataFlags(cmd, "the closing message")
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *force && strings.TrimSpace(*reason) == "" {
			return usagef("--force breaks somebody's hold: say why with --reason '...'")
		}
		if *stale && strings.TrimSpace(*reason) == "" {
			return usagef("--stale ends what was kept for somebody to look at: say what you saw with --reason '...'")
		}
		closing, err := data.read(ctx, p.stdin)
		if err != nil {
			return err
		}
		p.changing = true
		u := unlocking{program: p, client: c, holder: holder(), force: *force, stale: *stale, reason: *reason, data: closing}
		if *set {
			if len(args) != 1 || *token != 0 || *stale {
				return usagef("--set takes the name of one lock, and neither --token nor --stale: pylok unlock --set NAME")
			}
			return u.unlockSetOf(ctx, args[0])
		}
		if len(args) > 1 {
			if *token != 0 {
				return usagef("--token is for one lock; give one name")
			}
			return u.unlockEach(ctx, args)
		}
		holds, err := ownHolds(cmd, args, *token)
		if err != nil {
			return err
		}
		if len(holds) > 1 {
			return u.unlockHolds(ctx, &pylokv1.UnlockSetRequest{Holds: holdRefs(holds)})
		}
		return u.unlock(ctx, holds[0])
	})
	return cmd
}

// ownNamesArg is ownNameArg for commands that take several.
func ownNamesArg(cmd *cobra.Command, args []string) error {
	if len(args) < 2 {
		return ownNameArg(cmd, args)
	}
	for _, arg := range args {
		if _, err := lock.ParseName(arg); err != nil {
			return usagef("%v", err)
		}
	}
	return nil
}

// unlocking is what a command to unlock asks for, of each lock.
type unlocking struct {
	*program
	client       *client.Client
	holder       string
	force, stale bool
	reason       string
	data         *structpb.Struct
}

// unlock releases one lock.
func (u *unlocking) unlock(ctx context.Context, hold lock.HoldRef) error {
	request, response, err := u.release(ctx, hold)
	if err != nil {
		return err
	}
	return untold(request.GetName()+" is unlocked", u.print(response,
		func() map[string]any { return unlockDocument(response.GetLock(), request) },
		func(s style) string { return s.unlockBlock(response) }))
}

// release asks for the release of one lock.
func (u *unlocking) release(ctx context.Context, hold lock.HoldRef) (*pylokv1.UnlockRequest, *pylokv1.UnlockResponse, error) {
	request := &pylokv1.UnlockRequest{
		Name: hold.Name.String(), Token: uint64(hold.Token),
		Holder: u.holder, Force: u.force, Stale: u.stale, Reason: u.reason, Data: u.data,
	}
	response, err := call(ctx, u.program, u.client.Service().Unlock, request)
	if err != nil {
		err = u.explainNotReleased(ctx, err, request)
	}
	return request, response, err
}

// unlockEach releases several locks, each on its own: what is wrong with one keeps none of
// the others. The exit code is that of the first that was not released.
func (u *unlocking) unlockEach(ctx context.Context, names []string) error {
	failed := exitDone
	for _, text := range names {
		name, err := lock.ParseName(text)
		if err != nil {
			return usagef("%v", err)
		}
		request, response, err := u.release(ctx, lock.HoldRef{Name: name})
		if err == nil {
			err = untold(request.GetName()+" is unlocked", u.printOne(response, func(s style) string { return s.unlockBlock(response) }))
		}
		if err != nil {
			failed = cmp.Or(failed, u.report(err))
		}
	}
	if failed != exitDone {
		return &exitError{failed, ""}
	}
	return nil
}

// explainNotReleased is explainNotHeld, and knows what else a request to unlock can be
// refused for.
func (u *unlocking) explainNotReleased(ctx context.Context, err error, request *pylokv1.UnlockRequest) error {
	name := request.GetName()
	switch {
	case errors.Is(err, lock.ErrNotLocked) && request.GetToken() == 0:
		// Who has taken it with --shared may well give its name to unlock.
		status, statusErr := call(ctx, u.program, u.client.Service().Status, &pylokv1.StatusRequest{Name: name})
		if statusErr == nil && status.GetLock().GetSharedHolds() > 0 {
			return &exitError{exitNotHeld, fmt.Sprintf("%s itself is not locked; nothing was released\nIts shared holds are released by names of their own: pylok list '%s/*' shows them", name, name)}
		}
		return &exitError{exitNotHeld, name + " is not locked; nothing was released"}
	case request.GetStale():
		if l, ok := holdIn(err); ok && !l.Stale() && errors.Is(err, lock.ErrNotHolder) {
			return refusedHold(exitNotHeld, name+" is not stale; nothing was released", u.style().holdRows(l),
				[2]string{"follow it", "pylok watch " + name}, breakIt(l))
		}
	}
	return u.explainNotHeld(err, name, request.GetToken(), u.holder)
}

// unlockSetOf releases what is left of the set that a lock was taken in.
func (u *unlocking) unlockSetOf(ctx context.Context, name string) error {
	response, err := call(ctx, u.program, u.client.Service().Status, &pylokv1.StatusRequest{Name: name})
	l := response.GetLock()
	switch {
	case err != nil:
		return err
	case !isHeld(l):
		return &exitError{exitNotHeld, name + " is not locked, so it is in no set; give one that is (pylok list shows sets)"}
	case l.GetSet() == nil:
		return &exitError{exitNotHeld, name + " was not taken in a set; pylok unlock " + name + " releases it"}
	}
	return u.unlockHolds(ctx, &pylokv1.UnlockSetRequest{Set: l.GetSet().GetId()})
}

// holdRefs makes holds messages.
func holdRefs(holds []lock.HoldRef) (refs []*pylokv1.HoldRef) {
	for _, h := range holds {
		refs = append(refs, &pylokv1.HoldRef{Name: h.Name.String(), Token: uint64(h.Token)})
	}
	return refs
}

// unlockHolds releases several holds in one step. That not all could be is exit code 4.
func (u *unlocking) unlockHolds(ctx context.Context, request *pylokv1.UnlockSetRequest) error {
	request.Holder, request.Force, request.Reason, request.Data = u.holder, u.force, u.reason, u.data
	response, err := call(ctx, u.program, u.client.Service().UnlockSet, request)
	if err != nil {
		return err
	}
	done := 0
	for _, answer := range response.GetAnswers() {
		if answer.GetReason() == "" {
			done++
		}
	}
	err = untold(fmt.Sprintf("%d locks are unlocked", done), u.print(response, nil, func(s style) string { return s.answerBlock(response.GetAnswers()) }))
	if err == nil && done < len(response.GetAnswers()) {
		err = &exitError{exitNotHeld, fmt.Sprintf("%d of %d holds were not released", len(response.GetAnswers())-done, len(response.GetAnswers()))}
	}
	return err
}

// answerBlock tells what became of each hold of a set.
func (s style) answerBlock(answers []*pylokv1.SetAnswer) string {
	var b strings.Builder
	for _, answer := range answers {
		if answer.GetReason() == "" {
			b.WriteString(s.unlockBlock(&pylokv1.UnlockResponse{Lock: answer.GetLock(), Revision: answer.GetRevision(), Next: answer.GetNext()}))
		} else {
			fmt.Fprintf(&b, "%s  %s\n", printable(answer.GetName()), printable(answer.GetMessage()))
		}
	}
	return b.String()
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
		problem := name + " is not locked"
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
	if l.Stale() && (token == 0 || l.Token == lock.Token(token)) {
		return refusedHold(exitNotHeld, name+" is stale: the time of the hold is over, and it is kept until somebody has looked", facts,
			[2]string{"if you have", "pylok unlock " + name + " --stale --reason '...'"})
	}
	sameHold := l.Token == lock.Token(token) || token == 0 && l.Holder == holder
	follow := [2]string{"follow it", "pylok watch " + name}
	if refusal, ok := errors.AsType[*lock.Error](err); ok && l.Caller != "" && sameHold {
		return refusedHold(exitNotHeld, printable(refusal.Message), facts, follow, breakIt(l)) // no token makes it the caller's
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
