package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// causes are the words for why a change came about.
var causes = []string{lock.Request.String(), lock.Forced.String(), lock.Expired.String(), lock.File.String()}

func (p *program) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history [PATTERN]",
		Short: "Show past changes of locks",
		Long:  "Show past changes of locks, the newest last, as far back as the server keeps them.\n\n" + patternHelp,
		Example: `  pylok history lb/server-1 --since 7d
  pylok history 'lb/**' --since 2026-11-24 --until '2026-11-24 18:00' --by alice@ci-7
  pylok history --cause forced -n 20 -r`,
		Args:              patternArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	since := flags.String("since", "", "only changes from `TIME` on: "+pastForms)
	until := flags.String("until", "", "only changes before `TIME`; a day alone is its first moment")
	by := flags.String("by", "", "only changes that `WHO` made")
	cause := flags.String("cause", "", "only changes that came about by `CAUSE`: "+strings.Join(causes, ", "))
	limit := flags.IntP("limit", "n", 0, "only the last `N` of them")
	reverse := flags.BoolP("reverse", "r", false, "the newest first")
	for _, flag := range []string{"since", "until", "by", "limit"} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions))
	}
	must(cmd.RegisterFlagCompletionFunc("cause", cobra.FixedCompletions(causes, cobra.ShellCompDirectiveNoFileComp)))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *limit < 0 || *limit == 0 && flags.Changed("limit") {
			return usagef("--limit must be at least 1")
		}
		request := &pylokv1.HistoryRequest{Pattern: patternOf(args), Actor: *by, NewestFirst: *reverse}
		var err error
		if request.AfterTime, err = p.pastFlag(cmd, "since", *since); err != nil {
			return err
		}
		if request.BeforeTime, err = p.pastFlag(cmd, "until", *until); err != nil {
			return err
		}
		if from, to := request.AfterTime, request.BeforeTime; from != nil && to != nil && !from.AsTime().Before(to.AsTime()) {
			return usagef("--since %s is not before --until %s", *since, *until)
		}
		if flags.Changed("cause") {
			if !slices.Contains(causes, *cause) {
				return usagef("--cause: %q is none; it is one of %s", *cause, strings.Join(causes, ", "))
			}
			request.Cause = pylokv1.EventCause(pylokv1.EventCause_value["EVENT_CAUSE_"+strings.ToUpper(*cause)])
		}
		shown, err := p.showHistory(ctx, c, request, *limit)
		if err == nil && shown == 0 && p.output == textOutput {
			p.say("nothing has changed%s", matching(args))
		}
		return err
	})
	return cmd
}

// pastFlag returns the time of a flag, nil if it was not given.
func (p *program) pastFlag(cmd *cobra.Command, flag, text string) (*timestamppb.Timestamp, error) {
	if !cmd.Flags().Changed(flag) {
		return nil, nil
	}
	t, err := parsePast(text, p.now())
	if err != nil {
		return nil, usagef("--%s: %v", flag, err)
	}
	return timestamppb.New(t), nil
}

// showHistory prints the changes that are asked for, the last limit of them if limit is
// not 0, and returns how many it printed. It prints each page as it comes, unless the
// last are wanted in the order in which they came: those are asked for backwards.
func (p *program) showHistory(ctx context.Context, c *client.Client, request *pylokv1.HistoryRequest, limit int) (shown int, err error) {
	backwards := limit > 0 && !request.NewestFirst
	request.NewestFirst = request.NewestFirst || backwards
	var last []*pylokv1.Event
	for {
		request.PageSize = pageSize
		if left := limit - shown - len(last); limit > 0 && left < pageSize {
			request.PageSize = int32(left)
		}
		page, err := call(ctx, p, c.Service().History, request)
		if err != nil {
			return shown, err
		}
		events := page.GetEvents()
		if backwards {
			last, events = append(last, events...), nil
		}
		for _, event := range events {
			if err := p.printEvent(event, true); err != nil {
				return shown, err
			}
			shown++
		}
		request.PageToken = page.GetNextPageToken()
		if request.PageToken == "" || limit > 0 && shown+len(last) >= limit {
			break
		}
	}
	for _, event := range slices.Backward(last) {
		if err := p.printEvent(event, true); err != nil {
			return shown, err
		}
		shown++
	}
	return shown, nil
}
