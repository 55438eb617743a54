package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// verbs are the words for what rules allow.
var verbs = []string{string(client.View), string(client.Take), string(client.Break), string(client.Freeze), string(client.Admin)}

func (p *program) mayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "may VERB NAME",
		Short: "Ask whether the rules let you do something to a lock",
		Long: `Ask whether the server's access file lets you do something to a lock. VERB is view,
lock (take it, wait for it, renew and release a hold of yours), break (end or replace
somebody else's hold), freeze, or admin, which concerns the server and takes no NAME.
The exit code is 0 if it does and 4 if it does not. Without an access file everything
is allowed.`,
		Example: `  pylok may lock prod/web && deploy
  pylok may break prod/web --as unix:alice
  pylok may view prod/web --as group:ops`,
		Args: verbArgs,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return verbs, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	as := cmd.Flags().String("as", "", "ask for another `CALLER`, or group:NAME; needs the right admin")
	must(cmd.RegisterFlagCompletionFunc("as", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		if *as == "" && cmd.Flags().Changed("as") {
			return usagef("--as is empty; give a caller's name, or leave it out to ask for yourself")
		}
		request := &pylokv1.MayRequest{Verb: pylokv1.Verb(pylokv1.Verb_value["VERB_"+strings.ToUpper(args[0])]), As: *as}
		if len(args) > 1 {
			request.Name = args[1]
		}
		answer, err := call(ctx, p, c.Service().May, request)
		if err != nil {
			return err
		}
		err = p.print(answer, nil, func(style) string { return mayBlock(answer, args) })
		if err == nil && !answer.GetAllowed() {
			return &exitError{code: exitNotHeld} // the output has said it
		}
		return err
	})
	return cmd
}

// verbArgs is for commands that take a VERB, and a NAME where it concerns a lock.
func verbArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || !slices.Contains(verbs, args[0]) {
		return usagef("say what to do, one of %s: %s VERB NAME", strings.Join(verbs, ", "), cmd.CommandPath())
	}
	if args[0] != string(client.Admin) {
		if len(args) == 1 {
			return usagef("give the name of a lock: %s %s NAME", cmd.CommandPath(), args[0])
		}
		return nameArg(cmd, args[1:])
	}
	if len(args) > 1 {
		return usagef("admin concerns the server and no lock; %q is one too many", args[1])
	}
	return nil
}

// mayBlock shows the answer to what was asked, VERB and maybe NAME.
func mayBlock(answer *pylokv1.MayResponse, asked []string) string {
	may := "may"
	if !answer.GetAllowed() {
		may = "may not"
	}
	text := fmt.Sprintf("%s %s %s\n", printable(cmp.Or(answer.GetCaller(), "anybody")), may, printable(strings.Join(asked, " ")))
	if len(answer.GetGroups()) > 0 {
		text += row("groups", strings.Join(answer.GetGroups(), ", "))
	}
	return text + row("why", answer.GetWhy())
}
