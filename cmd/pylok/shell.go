package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// The variables that tell a shell and the commands in it of a hold: run sets them, and
// so does what lock --shell prints.
const (
	nameVariable    = "PYLOK_NAME"
	tokenVariable   = "PYLOK_TOKEN"
	addressVariable = "PYLOK_ADDRESS"
)

// eventVariable is set by watch --exec to the token that it sets tokenVariable to: of a
// hold that is watched, and that the command must not take for its own.
const eventVariable = "PYLOK_EVENT_TOKEN"

// shellHelp is the part of a command's --help that says which hold it is about without
// a NAME.
const shellHelp = `Without NAME it is exactly the hold that PYLOK_NAME and PYLOK_TOKEN tell of, as pylok
lock --shell and pylok run set them (what pylok watch --exec sets them to is nobody's
own). With NAME they do not count.`

// shellCode returns what sets and exports the variables of a hold in any POSIX shell,
// and others beside them. It is one line, so that an eval without quotes does the same.
func shellCode(l *pylokv1.Lock, others [][2]string) string {
	variables := [][2]string{{nameVariable, l.GetName()}, {tokenVariable, strconv.FormatUint(l.GetToken(), 10)}}
	variables = append(variables, others...)
	var set, names strings.Builder
	for _, v := range variables {
		fmt.Fprintf(&set, "%s=%s; ", v[0], shellQuote(v[1]))
		names.WriteString(" " + v[0])
	}
	return set.String() + "export" + names.String() + "\n"
}

// shellQuote makes text one word of a POSIX shell that means just this text.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// ownNameArg is for commands that take one NAME, or none for the hold that the
// environment tells of.
func ownNameArg(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return nameArg(cmd, args)
	}
	_, _, err := environmentHold(cmd)
	return err
}

// environmentHold returns the name and the token of the hold that the environment
// tells of.
func environmentHold(cmd *cobra.Command) (name string, token uint64, err error) {
	name = os.Getenv(nameVariable)
	if name == "" {
		return "", 0, usagef("give the name of a lock: %s NAME (or set PYLOK_NAME and PYLOK_TOKEN, as pylok lock --shell does)", cmd.CommandPath())
	}
	if _, err := lock.ParseName(name); err != nil {
		return "", 0, usagef("%s: %v", nameVariable, err)
	}
	text := os.Getenv(tokenVariable)
	if token, err = strconv.ParseUint(text, 10, 64); err != nil || token == 0 {
		return "", 0, usagef("%s is %s, but %s is %q and no token; give a name: %s NAME", nameVariable, name, tokenVariable, text, cmd.CommandPath())
	}
	if text == os.Getenv(eventVariable) {
		return "", 0, usagef("%s and %s tell of a change that is watched, and not of a hold of yours; give a name: %s NAME", nameVariable, tokenVariable, cmd.CommandPath())
	}
	return name, token, nil
}

// ownHold returns the name and the token that a command of ownNameArg is about. Without
// NAME a token that was given too is the one that counts.
func ownHold(cmd *cobra.Command, args []string, token uint64) (string, uint64, error) {
	if len(args) > 0 {
		return args[0], token, nil
	}
	name, fromEnvironment, err := environmentHold(cmd)
	if token == 0 {
		token = fromEnvironment
	}
	return name, token, err
}
