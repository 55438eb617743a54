package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func (p *program) watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [PATTERN]",
		Short: "Follow the changes of locks as they happen",
		Long: `Follow the changes of locks, a line each. What is held already comes first, as
locked; with --after N it is the changes since that revision instead. -o json and
-o yaml also show the marks in the stream: EVENT_TYPE_RESET, forget what you know,
and EVENT_TYPE_SYNCED, all changes up to that revision have been told. When the
server goes away, the watch waits for it and goes on where it was.

--exec runs a command for each line instead, one at a time, in order. It gets the
event as JSON on its standard input, and PYLOK_EVENT_TYPE (locked, updated,
unlocked, asked), PYLOK_CAUSE (request, forced, expired, file; empty for what was held
already), PYLOK_NAME, PYLOK_HOLDER, PYLOK_TOKEN, PYLOK_REVISION and PYLOK_REASON.

` + patternHelp,
		Example: `  pylok watch
  pylok watch 'lb/**' -o json
  pylok watch --after 42
  pylok watch 'lb/**' --exec 'logger "$PYLOK_NAME is $PYLOK_EVENT_TYPE"'`,
		Args:              patternArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	after := cmd.Flags().Uint64("after", 0, "tell the changes after this revision `N`, then go on")
	token := cmd.Flags().Uint64("token", 0, "the token `N` of your hold of the one lock NAME: tell what is asked of its holder too (pylok ask)")
	command := cmd.Flags().String("exec", "", "run `COMMAND` in a shell for each change, instead of printing it")
	must(cmd.RegisterFlagCompletionFunc("after", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("exec", cobra.NoFileCompletions))

	cmd.PreRun = func(*cobra.Command, []string) { p.onTrouble = p.sayTrouble }
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		w := watcher{program: p, pattern: patternOf(args), token: *token, seen: *after, whole: *after > 0}
		w.tell = func(ctx context.Context, event *pylokv1.Event) error { return p.printEvent(event, false) }
		w.tellsMarks = p.output != textOutput
		if *command != "" {
			w.tell = func(ctx context.Context, event *pylokv1.Event) error { return p.execute(ctx, *command, event) }
			w.tellsMarks = false
		} else if cmd.Flags().Changed("exec") {
			return usagef("--exec needs a command to run")
		}
		return w.watch(ctx, c)
	})
	return cmd
}

// watcher tells the changes of the locks that match a pattern.
type watcher struct {
	*program
	pattern    string
	token      uint64 // of a hold of the caller's, of whom others may ask something
	tell       func(context.Context, *pylokv1.Event) error
	tellsMarks bool // RESET and SYNCED too

	seen    uint64 // the revision of the last event
	whole   bool   // every change up to seen has been told
	greeted bool   // the person knows where it starts
}

// watch tells changes until ctx ends or something is wrong with them.
func (w *watcher) watch(ctx context.Context, c *client.Client) error {
	for event, err := range c.WatchMessages(ctx, &pylokv1.WatchRequest{Pattern: w.pattern, AfterRevision: w.seen, Token: w.token}) {
		if err == nil {
			err = w.receive(ctx, event)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sayTrouble tells the person why nothing is told.
func (p *program) sayTrouble(err error) {
	if err != nil {
		p.say("the server at %s went away; the watch goes on when it is back", p.address)
	} else {
		p.say("the server at %s is back", p.address)
	}
}

// receive tells an event and notes how far it brings the watch.
func (w *watcher) receive(ctx context.Context, event *pylokv1.Event) error {
	switch event.GetType() {
	case pylokv1.EventType_EVENT_TYPE_RESET:
		if !w.tellsMarks && w.whole && w.seen > 0 {
			w.say("the server cannot tell every change after revision %d; what follows first is what is locked now", w.seen)
		}
		w.whole = false
		if !w.tellsMarks {
			return nil
		}
	case pylokv1.EventType_EVENT_TYPE_SYNCED:
		w.seen, w.whole = event.GetRevision(), true
		if !w.tellsMarks {
			w.greet()
			return nil
		}
	case pylokv1.EventType_EVENT_TYPE_ASKED: // no change
	default:
		w.seen = event.GetRevision()
	}
	return w.tell(ctx, event)
}

// greet says, once, that what follows are changes as they happen.
func (w *watcher) greet() {
	if w.greeted {
		return
	}
	w.greeted = true
	what := ""
	if w.pattern != "" {
		what = " of " + w.pattern
	}
	w.say("watching for changes%s after revision %d", what, w.seen)
}

// printEvent prints an event: a line of text or JSON, or a YAML document.
func (p *program) printEvent(event *pylokv1.Event, dates bool) error {
	return p.printOne(event, func(s style) string { return s.eventLine(event, dates) })
}
