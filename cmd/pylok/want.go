package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pylok/pylok/client"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// wantFlags are the flags that say which locks are wanted and of which kind, for lock and
// run.
type wantFlags struct {
	cmd           *cobra.Command
	any           []string
	shared        bool
	limit         uint32
	throughFreeze bool
	replaceStale  bool
	reason        string
	onExpiry      onExpiry
	refuseManual  bool
	wait          wait
}

// wantHelp is the part of a command's --help that says how several locks are taken.
const wantHelp = `Several names are a set: all of them are taken together, or none. --any takes any of
some names, a pool, whichever is free first: --any 'patch/slot-{1..3}' one of three, --any
'2 rack7/{a..f}' two of six; --any 2 with names takes two of those. Braces are expanded as
shells do it: {a,b}, {1..20}, {01..20}, {a..f}; at most 64 names in all.`

// addWantFlags gives cmd the flags of wantFlags.
func addWantFlags(cmd *cobra.Command) *wantFlags {
	f := &wantFlags{cmd: cmd}
	flags := cmd.Flags()
	flags.Var(&f.wait, "wait", "stand in line this long for what cannot be had at once; forever: without an end")
	flags.StringArrayVar(&f.any, "any", nil, "take any of some names: `[N] NAMES`, such as 'slot-{1..3}' or '2 rack7/{a..f}'; N alone: so many of the names given")
	flags.BoolVar(&f.shared, "shared", false, "take a shared hold, beside others: many readers, one writer")
	flags.Uint32Var(&f.limit, "limit", 0, "with --shared, only while fewer than `N` shared holds stand")
	flags.BoolVar(&f.throughFreeze, "through-freeze", false, "take it although it is frozen; needs --reason, and the right to freeze")
	flags.BoolVar(&f.replaceStale, "replace-stale", false, "take the place of a stale hold, for you have looked; needs --reason")
	flags.StringVar(&f.reason, "reason", "", "why, as `TEXT` for the history")
	flags.Var(&f.onExpiry, "on-expiry", "what becomes of the hold when its time is over: release it, or keep it as stale until somebody looks")
	flags.BoolVar(&f.refuseManual, "refuse-manual", false, "do not wait for a person: for a hold, or one ahead in the line, without an end")
	for _, flag := range []string{"wait", "any", "limit", "reason"} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions))
	}
	must(cmd.RegisterFlagCompletionFunc("on-expiry", cobra.FixedCompletions(onExpiryWords, cobra.ShellCompDirectiveNoFileComp)))
	return f
}

// wanted is what the flags and names of a command ask for.
type wanted struct {
	names        []string
	choices      []*pylokv1.Choice
	refuseManual bool
	command      string // that takes it, such as pylok freeze; empty: pylok lock
}

// isSet reports whether it takes a LockSet.
func (w wanted) isSet() bool { return len(w.names) != 1 || len(w.choices) > 0 }

// what is what a message calls it, such as: prod/web; web, db and cache; any of slot-1,
// slot-2 or slot-3.
func (w wanted) what() string {
	parts := slices.Clone(w.names)
	for _, c := range w.choices {
		number := ""
		if c.GetCount() != 1 {
			number = fmt.Sprintf("%d ", c.GetCount())
		}
		parts = append(parts, "any "+number+"of "+enumerate(c.GetNames(), " or "))
	}
	return enumerate(parts, " and ")
}

// mostNamed is how many names a message lists.
const mostNamed = 4

// enumerate lists words, or the first of them and how many more there are.
func enumerate(words []string, conjunction string) string {
	switch n := len(words); {
	case n == 1:
		return words[0]
	case n > mostNamed:
		return fmt.Sprintf("%s%s%d others", strings.Join(words[:mostNamed-1], ", "), conjunction, n-mostNamed+1)
	default:
		return strings.Join(words[:n-1], ", ") + conjunction + words[n-1]
	}
}

// all returns all names, those of the choices too.
func (w wanted) all() []string {
	all := slices.Clone(w.names)
	for _, c := range w.choices {
		all = append(all, c.GetNames()...)
	}
	return all
}

// first returns the first name.
func (w wanted) first() string {
	if len(w.names) > 0 {
		return w.names[0]
	}
	return w.choices[0].GetNames()[0]
}

// read returns what is wanted.
func (f *wantFlags) read(args []string) (w wanted, err error) {
	for _, arg := range args {
		words, err := expandNames(arg)
		if err != nil {
			return w, err
		}
		w.names = append(w.names, words...)
	}
	for _, text := range f.any {
		choice := &pylokv1.Choice{Count: 1}
		fields := strings.Fields(text)
		if len(fields) > 0 {
			if n, err := strconv.ParseUint(fields[0], 10, 32); err == nil {
				choice.Count, fields = uint32(n), fields[1:]
				if len(fields) == 0 {
					choice.Names, w.names = w.names, nil
				}
			}
		}
		for _, field := range fields {
			words, err := expandNames(field)
			if err != nil {
				return w, err
			}
			choice.Names = append(choice.Names, words...)
		}
		switch {
		case len(choice.Names) == 0:
			return w, usagef("--any %s: give the names to choose from, such as --any 'slot-{1..3}'", lock.QuoteShort(text))
		case choice.Count == 0 || int(choice.Count) > len(choice.Names):
			return w, usagef("--any %s: %d of %d names cannot be had", lock.QuoteShort(text), choice.Count, len(choice.Names))
		}
		w.choices = append(w.choices, choice)
	}
	w.refuseManual = f.refuseManual
	if len(w.names)+len(w.choices) == 0 {
		return w, usagef("give the name of a lock: %s NAME", f.cmd.CommandPath())
	}
	for _, choice := range w.choices {
		// What a shell makes of --any slot-{1..3}, which would take all three.
		if len(choice.GetNames()) == 1 && len(w.names)+len(w.choices) > 1 {
			return w, usagef("--any %s is no choice, beside others: quote the braces, as in --any 'slot-{1..3}', or the shell takes them apart", choice.GetNames()[0])
		}
	}
	if w.isSet() && (f.shared || f.replaceStale) {
		return w, usagef("--shared and --replace-stale are for one lock; give one name")
	}
	if given := f.cmd.Flags().Changed("limit"); given && !f.shared {
		return w, usagef("--limit is for shared holds; give --shared too")
	} else if given && f.limit == 0 {
		return w, usagef("--limit must be at least 1; without it there is none")
	}
	switch noReason := strings.TrimSpace(f.reason) == ""; {
	case f.throughFreeze && noReason:
		return w, usagef("--through-freeze goes through what is to keep others out: say why with --reason '...'")
	case f.replaceStale && noReason:
		return w, usagef("--replace-stale ends what was kept for somebody to look at: say what you saw with --reason '...'")
	}
	return w, nil
}

// options returns what the flags say to Acquire or AcquireSet.
func (f *wantFlags) options(w wanted) (options []client.AcquireOption) {
	for _, c := range w.choices {
		options = append(options, client.WithChoice(int(c.GetCount()), c.GetNames()...))
	}
	switch {
	case f.limit > 0:
		options = append(options, client.WithLimit(int(f.limit)))
	case f.shared:
		options = append(options, client.WithShared())
	}
	if f.throughFreeze {
		options = append(options, client.WithThroughFreeze(f.reason))
	}
	if f.replaceStale {
		options = append(options, client.WithReplaceStale(f.reason))
	}
	if pylokv1.OnExpiry(f.onExpiry) == pylokv1.OnExpiry_ON_EXPIRY_KEEP {
		options = append(options, client.WithKeep())
	}
	if f.refuseManual {
		options = append(options, client.WithRefuseManual())
	}
	return options
}

// expandNames returns the names that an argument with braces stands for.
func expandNames(text string) ([]string, error) {
	words, err := expandBraces(text)
	if err != nil {
		return nil, usagef("%v", err)
	}
	for _, word := range words {
		if _, err := lock.ParseName(word); err != nil {
			return nil, usagef("%v", err)
		}
	}
	return words, nil
}

// onExpiryWords are the values of onExpiry.
var onExpiryWords = []string{"release", "keep"}

// onExpiry is a flag's value.
type onExpiry pylokv1.OnExpiry

// Set implements pflag.Value.
func (o *onExpiry) Set(text string) error {
	switch text {
	case "release":
		*o = onExpiry(pylokv1.OnExpiry_ON_EXPIRY_RELEASE)
	case "keep":
		*o = onExpiry(pylokv1.OnExpiry_ON_EXPIRY_KEEP)
	default:
		return usagef("it can be release or keep")
	}
	return nil
}

// String implements pflag.Value.
func (o *onExpiry) String() string {
	switch pylokv1.OnExpiry(*o) {
	case pylokv1.OnExpiry_ON_EXPIRY_RELEASE:
		return "release"
	case pylokv1.OnExpiry_ON_EXPIRY_KEEP:
		return "keep"
	}
	return ""
}

// Type implements pflag.Value; it is the word that --help shows.
func (o *onExpiry) Type() string { return "release|keep" }

// wait is a flag's value: a duration, or forever.
type wait time.Duration

// forever is the word for a wait without an end.
const forever = "forever"

// Set implements pflag.Value.
func (w *wait) Set(text string) error {
	if text == forever {
		*w = wait(lock.WaitForever)
		return nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	*w = wait(d)
	return nil
}

// String implements pflag.Value.
func (w *wait) String() string {
	switch time.Duration(*w) {
	case 0:
		return ""
	case lock.WaitForever:
		return forever
	}
	return formatDuration(time.Duration(*w))
}

// Type implements pflag.Value.
func (w *wait) Type() string { return "duration" }

// upTo says how long a wait is.
func upTo(wait time.Duration) string {
	if wait == lock.WaitForever {
		return ""
	}
	return " up to " + formatDuration(wait)
}

// setWait puts a wait into a request.
func setWait(wait time.Duration, duration **durationpb.Duration, forever *bool) {
	*duration, *forever = nil, wait == lock.WaitForever
	if !*forever {
		*duration = durationpb.New(wait)
	}
}
