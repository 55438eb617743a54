package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

func (p *program) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "info",
		Short:             "Show what the server is, where it keeps its locks, and who it takes you for",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: p.command(func(ctx context.Context, c *client.Client, _ []string) error {
			info, err := call(ctx, p, c.Service().Info, &pylokv1.InfoRequest{})
			if err != nil {
				return err
			}
			return p.print(info, nil, func(s style) string { return s.infoBlock(info, c.Address()) })
		}),
	}
}
