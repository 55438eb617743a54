package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// allFlag is the name of the flag for what covers everything.
const allFlag = "all"

// treeArg is for commands that take one NAME, or --all.
func treeArg(cmd *cobra.Command, args []string) error {
	all := cmd.Flags().Changed(allFlag)
	switch {
	case all && len(args) > 0:
		return usagef("give a name or --all, not both")
	case all:
		return nil
	}
	return nameArg(cmd, args)
}

// treeName returns what treeArg has read.
func treeName(args []string) string {
	if len(args) == 0 {
		return lock.AllName
	}
	return args[0]
}

func (p *program) freezeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "freeze NAME|--all",
		Short: "Keep everybody from taking a lock and all below its name",
		Long: `Freeze a part of the world: NAME and every lock below it, such as prod and prod/web.
From then on nobody gets a new hold there; what is held goes on, and can be renewed and
handed over. With --drain it begins only when nothing below is held any more, and keeps
later requests there waiting until then. It ends at --expire, after --ttl, or with pylok
thaw. A freeze is a lock like others: one file, which pylok status NAME shows.

Who must get through, and has the right to freeze, takes the lock with --through-freeze
and a --reason.

` + dataHelp,
		Example: `  pylok freeze prod --msg 'holiday' --expire 'mon 08:00'
  pylok freeze prod/db --drain --wait 1h --msg 'moving the disks'
  pylok freeze --all --ttl 30m --msg 'something is wrong'`,
		Args:              treeArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	data := addDataFlags(cmd, "the data")
	holder := p.holderFlag(cmd, "who freezes, as `TEXT`", "you@host", client.DefaultHolder)
	expiry := addExpiryFlags(cmd)
	cmd.Flags().Bool(allFlag, false, "freeze everything")
	drain := cmd.Flags().Bool("drain", false, "begin when nothing below is held any more; needs --wait")
	want := &wantFlags{cmd: cmd}
	cmd.Flags().Var(&want.wait, "wait", "stand in line this long; forever: without an end")
	cmd.Flags().StringVar(&want.reason, "reason", "", "why, as `TEXT` for the history")
	must(cmd.RegisterFlagCompletionFunc("wait", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *drain && want.wait == 0 {
			return usagef("--drain waits until nothing below is held: say for how long with --wait")
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
			program: p, client: c, want: want, wanted: wanted{names: []string{treeName(args)}, command: "pylok freeze"},
			holder: holder(), data: fields, ttl: ttl, expireTime: expireTime, tree: true, drain: *drain,
		}
		return t.run(ctx, func(message proto.Message, locks []*pylokv1.Lock) error {
			return p.print(message,
				func() map[string]any { return lockDocument(locks[0], "lock") },
				func(s style) string { return s.lockBlocks(locks) })
		})
	})
	return cmd
}

// sayDrain says what a freeze with --drain waits for, if there is something.
func (p *program) sayDrain(ctx context.Context, c *client.Client, name string, wait time.Duration) error {
	request := &pylokv1.ListRequest{Pattern: name + "/**", PageSize: 2}
	if name == lock.AllName {
		request.Pattern = ""
	}
	page, err := call(ctx, p, c.Service().List, request)
	if err != nil || len(page.GetLocks()) == 0 {
		return err
	}
	first, more := page.GetLocks()[0], ""
	if len(page.GetLocks()) > 1 {
		more = ", and others"
	}
	p.say("waiting%s until nothing below %s is held: %s is held by %s%s", upTo(wait), name, printable(first.GetName()), holderOf(first.GetHolder()), more)
	return nil
}

func (p *program) thawCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "thaw NAME|--all",
		Short: "End a freeze",
		Long: `End a freeze. Without --token it ends one that is anonymous or has your --holder;
anything else is exit code 4, and so is a lock that is not frozen.`,
		Example: `  pylok thaw prod
  pylok thaw prod --force --reason 'the holiday is over'`,
		Args:              treeArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().Bool(allFlag, false, "end the freeze of everything")
	token := cmd.Flags().Uint64("token", 0, "end exactly the freeze with this token `N`")
	holder := p.holderFlag(cmd, "who ends it, as `TEXT`", "you@host", client.DefaultHolder)
	force := cmd.Flags().Bool("force", false, "end it, whoever froze it")
	reason := cmd.Flags().String("reason", "", "why, as `TEXT` for the history; --force needs it")
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *force && strings.TrimSpace(*reason) == "" {
			return usagef("--force ends somebody's freeze: say why with --reason '...'")
		}
		name, err := lock.ParseName(treeName(args))
		if err != nil {
			return usagef("%v", err)
		}
		response, err := call(ctx, p, c.Service().Status, &pylokv1.StatusRequest{Name: name.String()})
		if err != nil {
			return err
		}
		if l := response.GetLock(); !l.GetTree() {
			problem := name.String() + " is not frozen"
			if isHeld(l) {
				problem += "; it is a lock that " + holderOf(l.GetHolder()) + " holds, and pylok unlock releases it"
			} else if o := l.GetBlockedBy(); o.GetKind() == pylokv1.ObstacleKind_OBSTACLE_KIND_TREE {
				problem += " itself; it is covered by " + p.styleFor(p.stderr).obstacle(o, 0)
			}
			return &exitError{exitNotHeld, problem}
		}
		p.changing = true
		u := unlocking{program: p, client: c, holder: holder(), force: *force, reason: *reason}
		hold := lock.HoldRef{Name: name, Token: lock.Token(*token)}
		if l := response.GetLock(); hold.Token == 0 && (*force || l.GetHolder() == "" || l.GetHolder() == u.holder) {
			hold.Token = lock.Token(l.GetToken()) // not a lock that has come in its place since
		}
		return u.unlock(ctx, hold)
	})
	return cmd
}

func (p *program) handOverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hand-over [NAME] --to WHO",
		Short: "Have a hold of yours go on under another holder",
		Long: `Hand a hold over, as at the end of a shift or to the next job: it goes on without a gap
under its new holder, with a new token, which is printed. The old token is refused from
then on. Where the server tells callers apart, the new one has to be named too: --to
unix:bob says both, --to-caller says it apart.

` + shellHelp + `

` + dataHelp,
		Example: `  pylok hand-over db/orders --to bob
  pylok hand-over db/orders --to 'night shift' --to-caller unix:bob --reason 'shift ends'`,
		Args:              ownNameArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	to := cmd.Flags().String("to", "", "who holds the lock from now on, as `TEXT`")
	toCaller := cmd.Flags().String("to-caller", "", "which authenticated `CALLER` it belongs to from now on (default: --to, if that is one, such as unix:bob)")
	token := cmd.Flags().Uint64("token", 0, "the token `N` of the hold (default: that of the hold with your --holder)")
	holder := p.holderFlag(cmd, "who hands over, as `TEXT`", "you@host", client.DefaultHolder)
	expiry := addExpiryFlags(cmd)
	never := cmd.Flags().Bool("never", false, "from now on it does not end by itself")
	reason := cmd.Flags().String("reason", "", "why, as `TEXT` for the history")
	data := addDataFlags(cmd, "the new data")
	for _, flag := range []string{"to", "to-caller", "token", "reason"} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions))
	}
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *to == "" {
			return usagef("say who gets the hold: pylok hand-over NAME --to WHO")
		}
		holds, err := ownHolds(cmd, args, *token)
		if err != nil {
			return err
		}
		if len(holds) > 1 {
			return usagef("%s tells of %d holds; hand them over one by one: pylok hand-over NAME --to WHO", nameVariable, len(holds))
		}
		request := &pylokv1.HandOverRequest{
			Name: holds[0].Name.String(), Token: uint64(holds[0].Token),
			Holder: *to, Caller: *toCaller, From: holder(), Reason: *reason, RequestId: rand.Text(),
		}
		if request.Caller == "" && isCaller(*to) {
			request.Caller = *to
		}
		if request.Data, err = data.read(ctx, p.stdin); err != nil {
			return err
		}
		ttl, expireTime, err := expiry.read(p.now())
		switch {
		case err != nil:
			return err
		case *never && (ttl != nil || expireTime != nil):
			return usagef("give --never, --ttl or --expire, not two of them")
		case *never:
			request.Expiry = &pylokv1.HandOverRequest_Never{Never: true}
		case ttl != nil:
			request.Expiry = &pylokv1.HandOverRequest_Ttl{Ttl: ttl}
		case expireTime != nil:
			request.Expiry = &pylokv1.HandOverRequest_ExpireTime{ExpireTime: expireTime}
		}
		if request.Token == 0 {
			if request.Token, err = p.ownToken(ctx, c, request.GetName(), holder()); err != nil {
				return err
			}
		}
		p.changing = true
		response, err := call(ctx, p, c.Service().HandOver, request)
		if err != nil {
			return p.explainNotHeld(err, request.GetName(), request.GetToken(), holder())
		}
		for _, warning := range response.GetWarnings() {
			p.say("pylok: %s", warning)
		}
		return untold(request.GetName()+" is handed over", p.print(response,
			func() map[string]any { return lockDocument(response.GetLock(), "lock") },
			func(s style) string { return s.lockBlocks([]*pylokv1.Lock{response.GetLock()}) }))
	})
	return cmd
}

// isCaller reports whether a text is the name of an authenticated caller, which carries its
// proof.
func isCaller(text string) bool {
	proof, _, ok := strings.Cut(text, ":")
	return ok && proof != "" && !strings.ContainsAny(proof, " /@")
}

// ownToken returns the token of a hold that has a holder.
func (p *program) ownToken(ctx context.Context, c *client.Client, name, holder string) (uint64, error) {
	response, err := call(ctx, p, c.Service().Status, &pylokv1.StatusRequest{Name: name})
	l := response.GetLock()
	switch {
	case err != nil:
		return 0, err
	case !isHeld(l):
		return 0, &exitError{exitNotHeld, name + " is not locked"}
	case l.GetHolder() != holder:
		return 0, &exitError{exitNotHeld, fmt.Sprintf("%s is held by %s, and not by %s; if it is yours, give its token: --token %d", name, holderOf(l.GetHolder()), holderOf(holder), l.GetToken())}
	}
	return l.GetToken(), nil
}

func (p *program) askCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ask NAME --msg TEXT",
		Short: "Ask the holder of a lock to let go",
		Long: `Ask the holder of a lock to let go. pylok run prints it for who looks at the job, and a
program that uses a client of pylok hears it; what follows is theirs to decide. If nobody
listens now, the next who does is told.`,
		Example:           `  pylok ask lb/server-1 --msg 'the disk must be replaced by noon'`,
		Args:              nameArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	message := cmd.Flags().String("msg", "", "what to say, as `TEXT`")
	token := cmd.Flags().Uint64("token", 0, "ask the holder of the hold with this token `N` alone")
	holder := p.holderFlag(cmd, "who asks, as `TEXT`", "you@host", client.DefaultHolder)
	must(cmd.RegisterFlagCompletionFunc("msg", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if strings.TrimSpace(*message) == "" {
			return usagef("say what for with --msg '...'")
		}
		response, err := call(ctx, p, c.Service().Ask, &pylokv1.AskRequest{Name: args[0], Token: *token, Message: *message, Holder: holder()})
		if err != nil {
			if *token == 0 && errors.Is(err, lock.ErrNotLocked) {
				return &exitError{exitNotHeld, args[0] + " is not locked; there is nobody to ask"}
			}
			return p.explainNotHeld(err, args[0], *token, "")
		}
		return p.print(response, nil, func(s style) string {
			who := holderOf(response.GetLock().GetHolder())
			if response.GetHeard() {
				return fmt.Sprintf("%s is told\n", who)
			}
			return fmt.Sprintf("nobody listens for %s at present; who next does is told\n", who)
		})
	})
	return cmd
}

func (p *program) dismissCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dismiss NAME PLACE --reason TEXT",
		Short: "Put a waiter out of the line for a lock",
		Long: `Put a waiter out of the line for a lock: it is refused, and told who did it and why.
pylok status NAME shows who waits, and at which place. It needs the right to break.`,
		Example: `  pylok dismiss db/orders 17 --reason 'the release is called off'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("give a name and a place: pylok dismiss NAME PLACE (pylok status NAME shows the places)")
			}
			return nameArg(cmd, args[:1])
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	reason := cmd.Flags().String("reason", "", "why, as `TEXT` for who waits")
	holder := p.holderFlag(cmd, "who does it, as `TEXT`", "you@host", client.DefaultHolder)
	must(cmd.RegisterFlagCompletionFunc("reason", cobra.NoFileCompletions))
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		var place uint64
		if _, err := fmt.Sscanf(args[1], "%d", &place); err != nil || fmt.Sprint(place) != args[1] || place == 0 {
			return usagef("%q is no place; pylok status %s shows who waits, and where", args[1], args[0])
		}
		if strings.TrimSpace(*reason) == "" {
			return usagef("say why with --reason '...', for who waits")
		}
		p.changing = true
		response, err := call(ctx, p, c.Service().Dismiss, &pylokv1.DismissRequest{Name: args[0], Place: place, Holder: holder(), Reason: *reason})
		if err != nil {
			return err
		}
		return p.print(response, nil, func(s style) string {
			w := response.GetWaiter()
			return fmt.Sprintf("%s waits for %s no more\n", printable(cmp.Or(w.GetHolder(), w.GetCaller(), "somebody who gave no name")), args[0])
		})
	})
	return cmd
}
