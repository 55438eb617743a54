package main

import (
	"io"

	"github.com/spf13/cobra"
)

func (p *program) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the script that completes pylok commands in your shell",
		Example: `  source <(pylok completion bash)
  pylok completion zsh > "${fpath[1]}/_pylok"
  pylok completion fish > ~/.config/fish/completions/pylok.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one shell: bash, zsh or fish")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p.started = true
			generate, ok := map[string]func(io.Writer) error{
				"bash": func(w io.Writer) error { return cmd.Root().GenBashCompletionV2(w, true) },
				"zsh":  cmd.Root().GenZshCompletion,
				"fish": func(w io.Writer) error { return cmd.Root().GenFishCompletion(w, true) },
			}[args[0]]
			if !ok {
				return usagef("there is no completion for %q; there is for bash, zsh and fish", args[0])
			}
			return generate(p.stdout)
		},
	}
}
