package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pylok/pylok/lock"
)

// nameArg is for commands that take one NAME.
func nameArg(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("give the name of a lock: %s NAME", cmd.CommandPath())
	}
	if len(args) > 1 {
		return usagef("give one name; %q is one too many", args[1])
	}
	if _, err := lock.ParseName(args[0]); err != nil {
		return usagef("%v", err)
	}
	return nil
}

// patternArg is for commands that take a PATTERN or nothing.
func patternArg(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("give one pattern; %q is one too many (quote a pattern, so that the shell leaves its stars alone)", args[1])
	}
	if _, err := lock.ParsePattern(patternOf(args)); err != nil {
		return usagef("%v", err)
	}
	return nil
}

// noArgs is for commands that take no arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments; what is %q for?", cmd.CommandPath(), args[0])
	}
	return nil
}

// patternOf returns the PATTERN that was given, or the empty one, which is all.
func patternOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// patternHelp is the part of a command's --help that says what a PATTERN is.
const patternHelp = `In PATTERN, * stands for anything within a segment, ** across segments: 'lb/*',
'**/web'. Without a star it is the name of one lock; without a PATTERN it is all.`

// expiryFlags are the flags that say when a hold ends by itself.
type expiryFlags struct {
	ttl    duration
	expire string
	given  func(flag string) bool
}

// addExpiryFlags gives cmd the flags of expiryFlags.
func addExpiryFlags(cmd *cobra.Command) *expiryFlags {
	f := &expiryFlags{given: cmd.Flags().Changed}
	cmd.Flags().Var(&f.ttl, "ttl", "the hold ends this long after it was granted or last renewed")
	cmd.Flags().StringVar(&f.expire, "expire", "", "the hold ends at `TIME`: "+expireForms)
	must(cmd.RegisterFlagCompletionFunc("ttl", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("expire", cobra.NoFileCompletions))
	return f
}

// read returns what the flags say; at most one of the two is not nil.
func (f *expiryFlags) read(now time.Time) (*durationpb.Duration, *timestamppb.Timestamp, error) {
	switch {
	case f.given("ttl") && f.given("expire"):
		return nil, nil, usagef("give --ttl or --expire, not both")
	case f.given("ttl") && f.ttl == 0:
		return nil, nil, usagef("--ttl must be more than 0; without it the hold has no end")
	case f.given("ttl"):
		return durationpb.New(time.Duration(f.ttl)), nil, nil
	case f.given("expire"):
		expire, err := parseExpire(f.expire, now)
		if err == nil && isWallTime(f.expire) {
			tz, set := os.LookupEnv("TZ")
			err = checkZone(tz, set, time.Local.String(), "+2h")
		}
		if err != nil {
			return nil, nil, usagef("--expire: %v", err)
		}
		return nil, timestamppb.New(expire), nil
	}
	return nil, nil, nil
}

// refusedHold is the error for one who cannot have or change a hold: what is
// wrong, the facts of the hold, and commands to go on with.
func refusedHold(code int, problem string, facts string, next ...[2]string) error {
	text := problem + "\n" + facts
	for _, step := range next {
		text += fmt.Sprintf("%-16s%s\n", step[0]+":", step[1])
	}
	return &exitError{code, text[:len(text)-1]}
}
