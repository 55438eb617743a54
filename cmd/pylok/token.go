package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/access/bearer"
)

func (p *program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token by which a server knows a caller",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no %s %s; there is %s new", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.tokenNewCommand())
	return cmd
}

// newToken is what token new prints as JSON and YAML.
type newToken struct {
	Name    string   `json:"name"`
	Token   string   `json:"token,omitempty"`
	File    string   `json:"file,omitempty"`
	Hash    string   `json:"hash"`
	Groups  []string `json:"groups,omitempty"`
	Expires string   `json:"expires,omitempty"`
	Entry   string   `json:"entry"`
}

func (p *program) tokenNewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a token, and the line of the access file that names its owner",
		Long: `Make a bearer token, 256 random bits, and print it with the line for the callers of the
server's access file, which has its SHA-256 alone: the token itself is nowhere else. No
server is asked. The caller is token:NAME; it gives its token as --token-file or
PYLOK_TOKEN_FILE, and only over TLS or a socket of this machine.`,
		Example: `  pylok token new ci --file ci.token --group deployers >> access.yaml
  pylok list --token-file ci.token`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef("give the name of who is to have the token: %s NAME", cmd.CommandPath())
			case len(args) > 1:
				return usagef("give one name; %q is one too many", args[1])
			}
			return plainWord("the name", args[0])
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	file := flags.String("file", "", "write the token to the new `FILE`, which you alone may read, instead of printing it")
	groups := flags.StringSlice("group", nil, "the caller is in `GROUP`; may be given more than once")
	expires := flags.String("expires", "", "the token ends at `TIME`: "+expireForms)
	must(cmd.RegisterFlagCompletionFunc("group", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("expires", cobra.NoFileCompletions))

	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		p.started = true
		made := newToken{Name: args[0], File: *file, Groups: *groups}
		for _, group := range *groups {
			if err := plainWord("--group", group); err != nil {
				return err
			}
		}
		if flags.Changed("expires") {
			end, err := parseExpire(*expires, p.now())
			if err != nil {
				return usagef("--expires: %v", err)
			}
			made.Expires = end.UTC().Format(time.RFC3339)
		}
		var token string
		token, made.Hash = bearer.New()
		made.Entry = made.entry()
		if *file == "" {
			made.Token = token
		} else if err := writeNewFile(*file, token+"\n"); err != nil {
			return err
		}
		return p.printToken(made)
	}
	return cmd
}

// plainWord refuses what would have to be quoted in the access file, or stands there for
// something else.
func plainWord(what, text string) error {
	if text == "" || strings.HasPrefix(text, "-") || strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@/+-") != "" {
		return usagef("%s is %q; give letters, digits and . _ @ / + -", what, text)
	}
	return nil
}

// entry returns the line for the callers of an access file.
func (t newToken) entry() string {
	line := fmt.Sprintf("- {name: %q, token: %q", t.Name, t.Hash)
	if len(t.Groups) > 0 {
		line += fmt.Sprintf(", groups: [%s]", `"`+strings.Join(t.Groups, `", "`)+`"`)
	}
	if t.Expires != "" {
		line += ", expires: " + t.Expires
	}
	return line + "}"
}

// writeNewFile writes a file that must not exist, for its owner alone.
func writeNewFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return usagef("--file: %s is there already; remove it, or give another", path)
	}
	if err != nil {
		return usagef("--file: %v", err)
	}
	_, err = f.WriteString(text)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

func (p *program) printToken(made newToken) error {
	if p.output == textOutput {
		text := "  " + made.Entry + "\n"
		if made.Token != "" {
			p.say("the token, which nobody can show again, and the line for callers in the access file:")
			text = made.Token + "\n" + text
		}
		return p.write([]byte(text))
	}
	line, err := json.Marshal(made)
	if err != nil {
		return err
	}
	if p.output == jsonOutput {
		return p.write(append(escapeJSON(line), '\n'))
	}
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return err
	}
	return p.write(toYAML(fields))
}
