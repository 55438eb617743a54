package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// pageSize is how many locks or events are asked for at a time: the most.
const pageSize = 1000

func (p *program) listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [PATTERN]",
		Short: "Show the locks that are held",
		Long: `Show the locks that are held, in the order of their names. Under KIND, where there is
something to say: a tree covers all names below its own; a stale hold is over, and kept
until somebody has looked; set 41/3 is one of three that were taken together, with the
token 41 as the lowest; a shared hold stands beside others.

` + patternHelp,
		Example: `  pylok list
  pylok list 'lb/**'
  pylok list --stale`,
		Args:              patternArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	stale := cmd.Flags().Bool("stale", false, "only holds that are over and kept until somebody has looked")
	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		all, err := p.list(ctx, c, patternOf(args))
		if err != nil {
			return err
		}
		nothing := "nothing is locked"
		if *stale {
			nothing = "nothing is stale"
			all.Locks = slices.DeleteFunc(all.Locks, func(l *pylokv1.Lock) bool { return l.GetStaleTime() == nil })
		}
		switch {
		case p.output == yamlOutput:
			return p.write(listDocument(all.GetLocks(), "status"))
		case p.output == textOutput && len(all.GetLocks()) == 0:
			p.say("%s%s", nothing, matching(args))
			return nil
		}
		return p.print(all, nil, func(s style) string { return s.lockTable(all.GetLocks()) })
	})
	return cmd
}

// list returns all pages as one.
func (p *program) list(ctx context.Context, c *client.Client, pattern string) (*pylokv1.ListResponse, error) {
	all := &pylokv1.ListResponse{}
	request := &pylokv1.ListRequest{Pattern: pattern, PageSize: pageSize}
	for {
		page, err := call(ctx, p, c.Service().List, request)
		if err != nil {
			return nil, err
		}
		if request.GetPageToken() == "" {
			all.Revision = page.GetRevision()
		}
		all.Locks = append(all.Locks, page.GetLocks()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}

// listDocument writes locks as a YAML list of the original library's dictionaries,
// each with the key lock_name. (The users' own documents often have a name.)
func listDocument(locks []*pylokv1.Lock, action string) []byte {
	if len(locks) == 0 {
		return []byte("[]\n")
	}
	var b []byte
	for _, l := range locks {
		document := lockDocument(l, action)
		document["lock_name"] = l.GetName()
		b = appendYAML(append(b, "- "...), document, 2)
	}
	return b
}

// matching says what was looked for, if that was not everything.
func matching(args []string) string {
	if pattern := patternOf(args); pattern != "" {
		return " that matches " + pattern
	}
	return ""
}
