package main

import (
	"context"
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
		var from time.Time
		if since != 0 {
			from = p.now().Add(-time.Duration(since))
		}
		events, err := p.history(ctx, c, patternOf(args), from, *limit)
		if err != nil {
			return err
		}
		if len(events) == 0 && p.output == textOutput {
			p.say("nothing has changed%s", matching(args))
		}
		for _, event := range events {
			if err := p.printEvent(event, true); err != nil {
				return err
			}
		}
		return nil
	})
	return cmd
}

// history returns the changes since from, the last limit of them if limit is not 0.
func (p *program) history(ctx context.Context, c *client.Client, pattern string, from time.Time, limit int) ([]*pylokv1.Event, error) {
	var events []*pylokv1.Event
	request := &pylokv1.HistoryRequest{Pattern: pattern, PageSize: pageSize}
	for {
		page, err := p.historyPage(ctx, c, request)
		if err != nil {
			return nil, err
		}
		for _, event := range page.GetEvents() {
			if !event.GetTime().AsTime().Before(from) {
				events = append(events, event)
			}
		}
		if limit > 0 && len(events) > limit {
			events = append([]*pylokv1.Event(nil), events[len(events)-limit:]...)
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return events, nil
		}
	}
}

func (p *program) historyPage(ctx context.Context, c *client.Client, request *pylokv1.HistoryRequest) (*pylokv1.HistoryResponse, error) {
	ctx, cancel := p.withTimeout(ctx, 0)
	defer cancel()
	return c.Service().History(ctx, request)
}
