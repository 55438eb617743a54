package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func (p *program) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Show a lock, held or free",
		Long: `Show a lock: who holds it, who waits for it, and what keeps a free one from being taken:
a tree above it, shared holds, or somebody who waits for it together with others. Held
or free, the exit code is 0; with --ensure-lock it is 4 for a free lock, with
--ensure-unlock 3 for one that is held, or that something keeps from being taken.`,
		Example: `  pylok status lb/server-1
  pylok status lb/server-1 --ensure-unlock && deploy
  pylok status lb/server-1 -o yaml`,
		Args:              nameArg,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	ensureLock := cmd.Flags().Bool("ensure-lock", false, "exit with 4 if the lock is free")
	ensureUnlock := cmd.Flags().Bool("ensure-unlock", false, "exit with 3 if the lock is held, or something keeps it from being taken")

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *ensureLock && *ensureUnlock {
			return usagef("--ensure-lock and --ensure-unlock contradict each other; give one of them")
		}
		response, err := call(ctx, p, c.Service().Status, &pylokv1.StatusRequest{Name: args[0]})
		if err != nil {
			return err
		}
		l := response.GetLock()
		err = p.print(response,
			func() map[string]any { return lockDocument(l, "status") },
			func(s style) string { return s.lockBlock(l) })
		switch {
		case err != nil:
			return err
		case *ensureLock && !isHeld(l):
			return &exitError{exitNotHeld, args[0] + " is not locked"}
		case *ensureUnlock && isHeld(l):
			return &exitError{exitHeld, args[0] + " is locked by " + holderOf(l.GetHolder())}
		case *ensureUnlock && l.GetBlockedBy() != nil:
			return &exitError{exitHeld, args[0] + " cannot be taken, for it is blocked by " + p.styleFor(p.stderr).obstacle(l.GetBlockedBy(), l.GetSharedHolds())}
		}
		return nil
	})
	return cmd
}
