//go:build !unix

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (p *program) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "run",
		Short:              "Run a command while holding a lock (not on this system)",
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			p.started = true
			return errors.New("run needs process groups, which this system does not have")
		},
	}
}
