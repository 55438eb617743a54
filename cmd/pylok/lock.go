package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (p *program) lockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lock NAME...",
		Short: "Take a lock, or several together",
		Long: `Take a lock. One that is held is refused with exit code 3, also when the holder has
the same name as you, and so is one that is frozen or that others came before you for;
--wait stands in line for it. A grant that cannot be told, because the output cannot be
written, is released again, and the exit code is 1; one that comes as you interrupt is
released too.

In a script, have just your own hold released when it ends. A second job that is
refused ends at the first line, and the lock of the first job is left alone:

  held=$(pylok lock NAME --shell) || exit
  eval "$held"                  # sets PYLOK_NAME and PYLOK_TOKEN
  trap 'pylok unlock' EXIT      # exactly that hold
  trap 'exit 1' HUP INT TERM    # for shells to which these are no EXIT

With --ttl, and pylok renew in between, a script that is killed leaves no lock behind
for good. pylok run does all of that around a command.

` + wantHelp + `

` + dataHelp,
		Example: `  pylok lock lb/server-1 --msg 'canary deployment' --data backend=App1 --data weight=0
  pylok lock db/orders --data-file ticket.yaml --ttl 30m --wait 5m
  pylok lock switch-7 --expire 'fri 18:00'
  pylok lock db/a db/b db/c --wait 10m
  pylok lock --any 'patch/slot-{1..3}' --wait forever
  pylok lock conf/app --shared
  held=$(pylok lock db/orders --ttl 1h --shell) || exit`,
		Args:              cobra.ArbitraryArgs, // want reads them
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	data := addDataFlags(cmd, "the data")
	holder := p.holderFlag(cmd, "who takes the lock, as `TEXT`; empty: anonymous, so that anyone may release it", "you@host", client.DefaultHolder)
	expiry := addExpiryFlags(cmd)
	want := addWantFlags(cmd)
	ensureUnlock := cmd.Flags().Bool("ensure-unlock", false, "fail if the lock is held; so it always is, unless --overwrite is given")
	shell := cmd.Flags().Bool("shell", false, "print PYLOK_NAME and PYLOK_TOKEN for a shell to eval, and --address and the like if they are given")
	overwrite := cmd.Flags().Bool("overwrite", false, "replace a hold that is anonymous or has your --holder")

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *ensureUnlock && *overwrite {
			return usagef("--ensure-unlock and --overwrite contradict each other; give one of them")
		}
		if *shell && cmd.Flags().Changed("output") {
			return usagef("--shell and --output are two forms of the output; give one of them")
		}
		wanted, err := want.read(args)
		if err != nil {
			return err
		}
		if wanted.isSet() && *overwrite {
			return usagef("--overwrite is for one lock; give one name")
		}
		fields, err := data.read(ctx, p.stdin)
		if err != nil {
			return err
		}
		ttl, expireTime, err := expiry.read(p.now())
		if err != nil {
			return err
		}
		t := taking{
			program: p, client: c, want: want, wanted: wanted,
			holder: holder(), data: fields, ttl: ttl, expireTime: expireTime, overwrite: *overwrite,
		}
		return t.run(ctx, func(message proto.Message, locks []*pylokv1.Lock) error {
			if wanted.isSet() && p.output == yamlOutput {
				return p.write(listDocument(locks, "lock"))
			}
			return p.print(message,
				func() map[string]any { return lockDocument(locks[0], "lock") },
				func(s style) string {
					if *shell {
						return shellCode(locks, p.handedOn())
					}
					return s.lockBlocks(locks)
				})
		})
	})
	return cmd
}

// taking is one lock, or a set, that is taken.
type taking struct {
	*program
	client     *client.Client
	want       *wantFlags
	wanted     wanted
	holder     string
	data       *structpb.Struct
	ttl        *durationpb.Duration
	expireTime *timestamppb.Timestamp
	overwrite  bool
	tree       bool // a freeze
	drain      bool
}

// run takes what is wanted and shows it. What cannot be shown is given back.
func (t *taking) run(ctx context.Context, show func(message proto.Message, locks []*pylokv1.Lock) error) error {
	message, locks, err := t.take(ctx)
	if err != nil {
		return t.explainHeld(err, t.wanted, time.Duration(t.want.wait))
	}
	if err := ctx.Err(); err != nil { // who asked has left
		return t.giveBack(ctx, t.client, locks, err)
	}
	if err := show(message, locks); err != nil {
		return t.giveBack(ctx, t.client, locks, err)
	}
	return nil
}

// take takes what is wanted, and returns the server's answer and the holds in it.
func (t *taking) take(ctx context.Context) (answer proto.Message, locks []*pylokv1.Lock, err error) {
	ask := t.ask
	if t.wanted.isSet() {
		ask = t.askSet
	}
	id := rand.Text()
	wait := time.Duration(t.want.wait)
	within := func(wait time.Duration) (err error) {
		ctx, cancel := t.withTimeout(ctx, wait)
		defer cancel()
		answer, locks, err = ask(ctx, id, wait)
		return err
	}
	if !t.drain {
		err = t.program.take(ctx, t.client, t.wanted, wait, within)
	} else if err = t.sayDrain(ctx, t.client, t.wanted.first(), wait); err == nil {
		err = within(wait) // it needs a wait from the beginning
	}
	return answer, locks, err
}

// ask asks for one lock.
func (t *taking) ask(ctx context.Context, id string, wait time.Duration) (proto.Message, []*pylokv1.Lock, error) {
	f := t.want
	request := &pylokv1.LockRequest{
		Name: t.wanted.names[0], Holder: t.holder, Data: t.data, RequestId: id, Overwrite: t.overwrite, Tree: t.tree, Drain: t.drain,
		Shared: f.shared, Limit: f.limit, ThroughFreeze: f.throughFreeze, ReplaceStale: f.replaceStale,
		Reason: f.reason, OnExpiry: pylokv1.OnExpiry(f.onExpiry), RefuseManual: f.refuseManual,
	}
	switch {
	case t.ttl != nil:
		request.Expiry = &pylokv1.LockRequest_Ttl{Ttl: t.ttl}
	case t.expireTime != nil:
		request.Expiry = &pylokv1.LockRequest_ExpireTime{ExpireTime: t.expireTime}
	}
	setWait(wait, &request.Wait, &request.WaitForever)
	response, err := t.client.LockMessage(ctx, request)
	return response, []*pylokv1.Lock{response.GetLock()}, err
}

// askSet asks for a set.
func (t *taking) askSet(ctx context.Context, id string, wait time.Duration) (proto.Message, []*pylokv1.Lock, error) {
	f := t.want
	request := &pylokv1.LockSetRequest{
		Names: t.wanted.names, Choices: t.wanted.choices, Holder: t.holder, Data: t.data, RequestId: id,
		ThroughFreeze: f.throughFreeze, Reason: f.reason, OnExpiry: pylokv1.OnExpiry(f.onExpiry), RefuseManual: f.refuseManual,
	}
	switch {
	case t.ttl != nil:
		request.Expiry = &pylokv1.LockSetRequest_Ttl{Ttl: t.ttl}
	case t.expireTime != nil:
		request.Expiry = &pylokv1.LockSetRequest_ExpireTime{ExpireTime: t.expireTime}
	}
	setWait(wait, &request.Wait, &request.WaitForever)
	response, err := t.client.LockSetMessage(ctx, request)
	return response, response.GetLocks(), err
}

// giveBackWithin is how long a lock that nobody will use may take to be released.
const giveBackWithin = 5 * time.Second

// giveBack releases locks whose grant was not told to who asked for it, because of
// err, and returns the error to end with.
func (p *program) giveBack(ctx context.Context, c *client.Client, locks []*pylokv1.Lock, err error) error {
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	if stay, failed := releaseUntold(release, c, locks); failed != nil {
		is, it := "is", "it"
		if len(stay) > 1 {
			is, it = "are", "they"
		}
		return &exitError{failureCode(ctx), fmt.Sprintf("%s %s locked with token %s, nobody was told, and %s cannot be released: %v", lockNames(stay), is, lockTokens(stay), it, failed)}
	}
	if ctx.Err() != nil {
		return err
	}
	was, is := "was", "it is"
	if len(locks) > 1 {
		was, is = "were", "they are"
	}
	return &exitError{exitFailed, fmt.Sprintf("%s %s granted, but that cannot be told: %v; %s released again", lockNames(locks), was, err, is)}
}

// releaseUntold releases locks in one step, and returns those that may stay locked and why.
func releaseUntold(ctx context.Context, c *client.Client, locks []*pylokv1.Lock) (stay []*pylokv1.Lock, failed error) {
	const reason = "the grant could not be told to who asked for it"
	holds := make([]lock.HoldRef, len(locks))
	for i, l := range locks {
		name, err := lock.ParseName(l.GetName())
		if err != nil {
			return locks, err
		}
		holds[i] = lock.HoldRef{Name: name, Token: lock.Token(l.GetToken())}
	}
	if len(holds) == 1 { // an older server knows no other way
		_, err := c.Unlock(ctx, lock.UnlockRequest{Name: holds[0].Name, Token: holds[0].Token, Reason: reason})
		if err == nil || isOver(err) {
			return nil, nil
		}
		return locks, err
	}
	answers, err := c.UnlockSet(ctx, lock.UnlockSetRequest{Holds: holds, Reason: reason})
	if err != nil {
		return locks, err
	}
	for _, answer := range answers {
		i := slices.IndexFunc(locks, func(l *pylokv1.Lock) bool { return l.GetName() == answer.Name.String() })
		if i >= 0 && answer.Err != nil && !isOver(answer.Err) {
			stay, failed = append(stay, locks[i]), answer.Err
		}
	}
	return stay, failed
}

// isOver reports whether a hold could not be released because it is over.
func isOver(err error) bool {
	return errors.Is(err, lock.ErrNotHolder) || errors.Is(err, lock.ErrNotLocked)
}

// lockNames lists the names of locks.
func lockNames(locks []*pylokv1.Lock) string {
	names := make([]string, len(locks))
	for i, l := range locks {
		names[i] = l.GetName()
	}
	return strings.Join(names, " ")
}

// lockTokens lists the tokens of locks.
func lockTokens(locks []*pylokv1.Lock) string {
	tokens := make([]string, len(locks))
	for i, l := range locks {
		tokens[i] = strconv.FormatUint(l.GetToken(), 10)
	}
	return strings.Join(tokens, " ")
}

// explainHeld says of locks that cannot be had what is in the way and how to go on.
func (p *program) explainHeld(err error, w wanted, waited time.Duration) error {
	refusal, ok := errors.AsType[*lock.Error](err)
	if !ok || refusal.Reason != lock.ErrLockHeld {
		return err
	}
	if refusal.Lock == nil || refusal.Lock.Name.IsZero() { // one that the caller may not view
		return &exitError{exitHeld, printable(refusal.Message)}
	}
	l, name := *refusal.Lock, w.inTheWayOf(*refusal.Lock)
	if name == "" {
		return &exitError{exitHeld, printable(refusal.Message)} // the server says it best
	}
	after, rows := "", ""
	if l.Held() {
		rows = p.style().holdRows(l)
	}
	switch {
	case w.refuseManual && l.Manual():
		after = " without an end, which --refuse-manual does not wait for"
	case waited > 0 && waited != lock.WaitForever && !w.refuseManual: // that may refuse at any time
		after = ", still after waiting " + formatDuration(waited)
	}
	wait := [2]string{"wait for it", cmp.Or(w.command, "pylok lock") + " " + name + " --wait 5m"}
	if w.isSet() {
		wait = [2]string{"wait for all", "--wait 5m"}
		if _, others, ok := strings.Cut(refusal.Message, "; also in the way: "); ok { // for the person to read, as the server has it
			rows += row("also", others)
		}
	}
	follow := [2]string{"follow it", "pylok watch " + name}
	switch isIt := l.Name.String() == name; {
	case isIt && l.Stale():
		return refusedHold(exitHeld, name+" is locked"+after+", but stale: its time is over, and it is kept until somebody has looked", rows,
			[2]string{"if you have", "pylok lock " + name + " --replace-stale --reason '...'"},
			[2]string{"or end it", "pylok unlock " + name + " --stale --reason '...'"})
	case isIt && l.Tree:
		return refusedHold(exitHeld, name+" is frozen"+after, rows,
			wait, [2]string{"ask for it", "pylok ask " + name + " --msg '...'"}, follow,
			[2]string{"end it", "pylok thaw " + name + " --force --reason '...'"})
	case isIt && l.Held():
		return refusedHold(exitHeld, name+" is locked"+after, rows,
			wait, [2]string{"ask for it", "pylok ask " + name + " --msg '...'"}, follow, breakIt(l))
	case isIt:
		return refusedHold(exitHeld, name+" is free, but others came before"+after, rows,
			wait, [2]string{"see who", "pylok status " + name})
	case l.Tree:
		through := [2]string{"go through it", "pylok lock " + name + " --through-freeze --reason '...'"}
		if w.isSet() {
			through[1] = "--through-freeze --reason '...'"
		}
		return refusedHold(exitHeld, name+" is frozen"+after, row("with", l.Name.String()+", and all below it")+rows,
			wait, [2]string{"follow it", "pylok watch " + l.Name.String()}, through)
	}
	return refusedHold(exitHeld, name+" is held shared"+after, row("shared", l.Name.String()+", and maybe more")+rows, wait, follow)
}

// inTheWayOf returns which of the wanted names a lock is in the way of; empty: it does not
// say so itself.
func (w wanted) inTheWayOf(l lock.Lock) string {
	for _, text := range w.all() {
		name, err := lock.ParseName(text)
		if err == nil && (name == l.Name || l.Tree && l.Name.Covers(name) || l.Shared() && l.Name.Base() == name) {
			return text
		}
	}
	return ""
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
