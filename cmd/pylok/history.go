package main

import (
	"context"
	"sort"
	"time"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func (p *program) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history [PATTERN]",
		Short: "Show past changes of locks",
		Long:  "Show past changes of locks, the newest last, as far back as the server keeps them.\n\n" + patternHelp,
		Example: `  pylok history lb/server-1 --since 7d
  pylok history --limit 20`,
		Args:              patternArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	var since duration
	cmd.Flags().Var(&since, "since", "only changes of this last time, such as 24h or 7d")
	limit := cmd.Flags().Int("limit", 0, "only the last `N` of them")
	must(cmd.RegisterFlagCompletionFunc("since", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *limit < 0 || *limit == 0 && cmd.Flags().Changed("limit") {
			return usagef("--limit must be at least 1")
		}
		h := historian{program: p, client: c, pattern: patternOf(args)}
		if since != 0 {
			h.from = p.now().Add(-time.Duration(since))
		}
		shown, err := h.show(ctx, *limit)
		if err == nil && shown == 0 && p.output == textOutput {
			p.say("nothing has changed%s", matching(args))
		}
		return err
	})
	return cmd
}

// historian shows the changes of the locks that match a pattern.
type historian struct {
	*program
	client  *client.Client
	pattern string
	from    time.Time // no change before it is shown; zero: all are
}

// show prints the changes, the last limit of them if limit is not 0, and returns
// how many it printed. Without a limit it prints each page as it comes.
func (h *historian) show(ctx context.Context, limit int) (shown int, err error) {
	request := &pylokv1.HistoryRequest{Pattern: h.pattern, PageSize: pageSize}
	if !h.from.IsZero() {
		if request.AfterRevision, err = h.revisionBefore(ctx, h.from); err != nil {
			return 0, err
		}
	}
	var last []*pylokv1.Event
	for {
		page, err := h.page(ctx, request)
		if err != nil {
			return shown, err
		}
		for _, event := range page.GetEvents() {
			if event.GetTime().AsTime().Before(h.from) {
				continue
			}
			if limit > 0 {
				last = append(last, event)
				continue
			}
			if err := h.printEvent(event, true); err != nil {
				return shown, err
			}
			shown++
		}
		if limit > 0 && len(last) > limit {
			last = append([]*pylokv1.Event(nil), last[len(last)-limit:]...)
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			break
		}
	}
	for _, event := range last {
		if err := h.printEvent(event, true); err != nil {
			return shown, err
		}
		shown++
	}
	return shown, nil
}

// revisionBefore returns the last revision before the first change at or after a
// time. It is found by bisection, which takes the times of changes to be in their
// order; where the server's clock was set back, it is one of several that fit.
func (h *historian) revisionBefore(ctx context.Context, from time.Time) (uint64, error) {
	infoCtx, cancel := h.withTimeout(ctx, 0)
	defer cancel()
	info, err := h.client.Service().Info(infoCtx, &pylokv1.InfoRequest{})
	if err != nil {
		return 0, err
	}
	revision := sort.Search(int(info.GetRevision()), func(after int) bool {
		if err != nil {
			return true
		}
		var event *pylokv1.Event
		event, err = h.firstAfter(ctx, uint64(after))
		return event == nil || !event.GetTime().AsTime().Before(from)
	})
	return uint64(revision), err
}

// firstAfter returns the first change after a revision, of any lock, or nil.
func (h *historian) firstAfter(ctx context.Context, revision uint64) (*pylokv1.Event, error) {
	request := &pylokv1.HistoryRequest{AfterRevision: revision, PageSize: 1}
	for {
		page, err := h.page(ctx, request)
		if err != nil {
			return nil, err
		}
		if len(page.GetEvents()) > 0 {
			return page.GetEvents()[0], nil
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return nil, nil
		}
	}
}

func (h *historian) page(ctx context.Context, request *pylokv1.HistoryRequest) (*pylokv1.HistoryResponse, error) {
	ctx, cancel := h.withTimeout(ctx, 0)
	defer cancel()
	return h.client.Service().History(ctx, request)
}
