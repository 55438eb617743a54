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
own). Those of a set have its names and tokens with blanks between. With NAME they do not
count.`

// shellCode returns what sets and exports the variables of a hold in any POSIX shell,
// and others beside them. It is one line, so that an eval without quotes does the same.
func shellCode(locks []*pylokv1.Lock, others [][2]string) string {
	variables := [][2]string{{nameVariable, lockNames(locks)}, {tokenVariable, lockTokens(locks)}}
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
	_, err := environmentHolds(cmd)
	return err
}

// environmentHolds returns the holds that the environment tells of, at least one.
func environmentHolds(cmd *cobra.Command) (holds []lock.HoldRef, err error) {
	names, tokens := strings.Fields(os.Getenv(nameVariable)), strings.Fields(os.Getenv(tokenVariable))
	if len(names) == 0 {
		return nil, usagef("give the name of a lock: %s NAME (or set PYLOK_NAME and PYLOK_TOKEN, as pylok lock --shell does)", cmd.CommandPath())
	}
	for i, text := range names {
		name, err := lock.ParseName(text)
		if err != nil {
			return nil, usagef("%s: %v", nameVariable, err)
		}
		token := uint64(0)
		if len(tokens) == len(names) {
			token, _ = strconv.ParseUint(tokens[i], 10, 64)
		}
		if token == 0 {
			return nil, usagef("%s is %s, but %s is %q and no token; give a name: %s NAME", nameVariable, strings.Join(names, " "), tokenVariable, os.Getenv(tokenVariable), cmd.CommandPath())
		}
		holds = append(holds, lock.HoldRef{Name: name, Token: lock.Token(token)})
	}
	if os.Getenv(tokenVariable) == os.Getenv(eventVariable) {
		return nil, usagef("%s and %s tell of a change that is watched, and not of a hold of yours; give a name: %s NAME", nameVariable, tokenVariable, cmd.CommandPath())
	}
	return holds, nil
}

// ownHolds returns the holds that a command of ownNameArg is about; a token of 0 is not
// known. Without NAME a token that was given too is the one that counts.
func ownHolds(cmd *cobra.Command, args []string, token uint64) ([]lock.HoldRef, error) {
	if len(args) > 0 {
		name, err := lock.ParseName(args[0])
		return []lock.HoldRef{{Name: name, Token: lock.Token(token)}}, err
	}
	holds, err := environmentHolds(cmd)
	if err == nil && token != 0 {
		if len(holds) > 1 {
			return nil, usagef("--token is for one hold, and %s tells of %d; give a name: %s NAME", nameVariable, len(holds), cmd.CommandPath())
		}
		holds[0].Token = lock.Token(token)
	}
	return holds, err
}
