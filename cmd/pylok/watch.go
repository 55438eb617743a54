package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

func (p *program) watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [PATTERN]",
		Short: "Follow the changes of locks as they happen",
		Long: `Follow the changes of locks, a line each. What is held already comes first, as
locked; with --after N it is the changes since that revision instead. -o json and
-o yaml also show the marks in the stream: EVENT_TYPE_RESET, forget what you know,
and EVENT_TYPE_SYNCED, all changes up to that revision have been told.

` + patternHelp,
		Example: `  pylok watch
  pylok watch 'lb/**' -o json
  pylok watch --after 42`,
		Args:              patternArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	after := cmd.Flags().Uint64("after", 0, "tell the changes after this revision `N`, then go on")
	must(cmd.RegisterFlagCompletionFunc("after", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		stream, err := c.Service().Watch(ctx, &pylokv1.WatchRequest{Pattern: patternOf(args), AfterRevision: *after})
		if err != nil {
			return err
		}
		w := watcher{program: p, matching: matching(args), seen: *after, whole: *after > 0}
		for {
			response, err := stream.Recv()
			if err != nil {
				return w.ended(err)
			}
			if err := w.show(response.GetEvent()); err != nil {
				return err
			}
		}
	})
	return cmd
}

// watcher shows one stream of events.
type watcher struct {
	*program
	matching string
	seen     uint64 // the revision of the last event
	whole    bool   // every change up to seen has been told
	greeted  bool   // the person knows where it starts
}

// show prints an event.
func (w *watcher) show(event *pylokv1.Event) error {
	kind := event.GetType()
	switch kind {
	case pylokv1.EventType_EVENT_TYPE_RESET:
		if w.output == textOutput && w.whole {
			w.say("the server cannot tell every change after revision %d; what follows first is what is locked now", w.seen)
		}
		w.whole = false
	case pylokv1.EventType_EVENT_TYPE_SYNCED:
		w.seen, w.whole = event.GetRevision(), true
		if w.output == textOutput && !w.greeted {
			w.say("watching for changes%s after revision %d", w.matching, w.seen)
		}
		w.greeted = true
	default:
		w.seen = event.GetRevision()
	}
	isMark := kind == pylokv1.EventType_EVENT_TYPE_RESET || kind == pylokv1.EventType_EVENT_TYPE_SYNCED
	if isMark && w.output == textOutput {
		return nil
	}
	return w.printEvent(event, false)
}

// ended returns the error for the end of the stream, which has none of its own.
func (w *watcher) ended(err error) error {
	unreachable, lost := errors.AsType[*client.UnreachableError](err)
	if !lost && !errors.Is(err, lock.ErrShuttingDown) && !errors.Is(err, io.EOF) {
		return err
	}
	if lost && !unreachable.Sent {
		return err // it was never there
	}
	text := "the server at " + w.address + " went away"
	if w.whole {
		text += fmt.Sprintf("; --after %d goes on from here when it is back", w.seen)
	}
	return &exitError{exitUnreachable, text}
}

// printEvent prints an event: a line of text or JSON, or a YAML document.
func (p *program) printEvent(event *pylokv1.Event, dates bool) error {
	if p.output == yamlOutput {
		if err := p.write([]byte("---\n")); err != nil {
			return err
		}
	}
	return p.print(event, nil, func(s style) string { return s.eventLine(event, dates) })
}
