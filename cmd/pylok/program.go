package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// program is one run of pylok: where it reads and writes, and the flags that all
// commands have.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time // in the zone that times are shown and read in
	started        bool             // a command has begun, so args were understood
	changing       bool             // it asks the server for a change
	onTrouble      func(error)      // the client's; nil: nothing is said

	settings    *settings // what flags, environment and config file say
	address     string    // the server's, once there is a client
	foundSocket bool      // nobody said where, and a socket is there
	output      outputFormat
	timeout     duration
}

func newProgram(stdin io.Reader, stdout, stderr io.Writer) *program {
	return &program{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
}

// rootCommand returns the command line of the program.
func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pylok",
		Short: "Locks you can read",
		Long: `pylok takes, releases, shows and follows locks on a pylok server. A held lock is
one YAML file on the server, with what you want others to know in it.`,
		Example: `  pylok lock lb/server-1 --msg 'canary deployment' --data backend=App1
  pylok status lb/server-1
  pylok watch 'lb/**'
  pylok unlock lb/server-1`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return noCommand(cmd, args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetHelpCommand(helpCommand())
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
			if _, ok := errors.AsType[*strconv.NumError](err); ok {
				return usagef("--%s: %q is not a number that it can be", invalid.GetFlag().Name, invalid.GetValue())
			}
			return usagef("--%s: %v", invalid.GetFlag().Name, invalid.Unwrap())
		}
		return usagef("%v; %s --help lists the flags", err, cmd.CommandPath())
	})

	p.output = textOutput
	p.timeout = duration(10 * time.Second)
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.VarP(&p.output, "output", "o", "print text (for people), json or yaml")
	flags.Var(&p.timeout, "timeout", "how long to wait for the server's answer, --wait not counted")
	addConnectionFlags(flags)
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputFormats, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("address", cobra.NoFileCompletions))
	must(root.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions))
	must(root.RegisterFlagCompletionFunc("audience", cobra.NoFileCompletions))
	must(root.RegisterFlagCompletionFunc("tls-min-version", cobra.FixedCompletions([]string{"1.2", "1.3"}, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("ci-token", cobra.FixedCompletions([]string{"auto", "off"}, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("context", func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		return completeContext(cmd, nil, text)
	}))

	root.AddCommand(
		p.lockCommand(),
		p.unlockCommand(),
		p.renewCommand(),
		p.runCommand(),
		p.freezeCommand(),
		p.thawCommand(),
		p.handOverCommand(),
		p.askCommand(),
		p.dismissCommand(),
		p.statusCommand(),
		p.listCommand(),
		p.watchCommand(),
		p.historyCommand(),
		p.mayCommand(),
		p.tokenCommand(),
		p.infoCommand(),
		p.contextCommand(),
		p.benchCommand(),
		p.completionCommand(),
	)
	return root
}

// noCommand is the error for a command that is not there.
func noCommand(root *cobra.Command, name string) error {
	near := root.SuggestionsFor(name)
	likes := func(other string) bool { return name != "" && other[0] == name[0] } // people get the first letter right
	if i := slices.IndexFunc(near, likes); i > 0 {
		near[0] = near[i]
	}
	if len(near) > 0 {
		return usagef("there is no command %q; did you mean %s?", name, near[0])
	}
	return usagef("there is no command %q; pylok --help lists them", name)
}

// helpCommand is cobra's own, but for a command that is not there, which is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show what a command does and which flags it has",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			if len(args) == 0 {
				return root.Help()
			}
			if len(args) > 1 {
				return usagef("name one command; %q is one too many", args[1])
			}
			for _, c := range root.Commands() {
				if c.Name() == args[0] {
					c.InitDefaultHelpFlag()
					return c.Help()
				}
			}
			return noCommand(root, args[0])
		},
	}
}

// command makes f the work of a command that talks to the server.
func (p *program) command(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		p.started = true
		err := checkTexts(cmd.Flags())
		if err != nil {
			return err
		}
		if p.settings, err = readSettings(cmd.Flags()); err != nil {
			return err
		}
		c, err := p.dial()
		if err != nil {
			return err
		}
		p.address = c.Address()
		p.foundSocket = !p.settings.of(addressSetting).given && strings.HasPrefix(p.address, "unix:")
		defer c.Close()
		return f(cmd.Context(), c, args)
	}
}

// checkTexts refuses texts for people that cannot be sent: they are not UTF-8.
func checkTexts(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "holder", "msg", "reason", "to", "to-caller":
			if text := f.Value.String(); !utf8.ValidString(text) {
				err = usagef("--%s: %s is not valid UTF-8", f.Name, lock.QuoteShort(text))
			}
		}
	})
	return err
}

// dial makes the client that the settings ask for.
func (p *program) dial() (*client.Client, error) {
	if p.timeout == 0 {
		return nil, usagef("--timeout must be more than 0")
	}
	address, options, err := p.settings.options()
	if err != nil {
		return nil, err
	}
	address = cmp.Or(p.address, address)
	options.OnTrouble = p.onTrouble
	c, err := client.Dial(address, options)
	if err != nil {
		return nil, usagef("%v (see --address, --tls, --ca and --insecure)", err)
	}
	return c, nil
}

// withTimeout returns a context for a call that the server answers within wait and
// no time to speak of.
func (p *program) withTimeout(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if wait == lock.WaitForever {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, wait+time.Duration(p.timeout))
}

// call makes a call that the server answers in no time to speak of.
func call[Request, Response any](ctx context.Context, p *program, rpc func(context.Context, Request, ...grpc.CallOption) (Response, error), request Request) (Response, error) {
	ctx, cancel := p.withTimeout(ctx, 0)
	defer cancel()
	return rpc(ctx, request)
}

// say writes a line for the person at the terminal, beside the output.
func (p *program) say(format string, args ...any) {
	fmt.Fprintln(p.stderr, printableLines(fmt.Sprintf(format, args...)))
}

// must is for mistakes in the program's own wiring.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
