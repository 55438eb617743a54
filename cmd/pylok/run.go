//go:build unix

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// How long a command whose lock is lost, or about to be, may take to end.
const (
	longestGrace = 5 * time.Second // of those that nobody asks for
	graceOfTTL   = 3               // which part of the ttl it is at most
	killEarly    = 10              // which part of it SIGKILL comes before the lease ends
)

// stopWithin is how soon a process stops that stops itself. One that has not stopped
// then has no shell that would let it go on.
const stopWithin = 100 * time.Millisecond

func (p *program) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run NAME... [flags] -- COMMAND [ARG]...",
		Short: "Run a command while holding a lock, or several",
		Long: `Take a lock, run a command, and release the lock when the command has ended. The hold
has a ttl and is renewed while the command runs, so that a crash leaves no lock
behind. Signals go on to the command and the processes it has started, and its exit
code comes back (128 and the number for a signal). PYLOK_NAME and PYLOK_TOKEN in its
environment are the lock's name and the hold's token, of a set those of all its locks
with blanks between: send the token along to what the lock protects. PYLOK_ADDRESS,
PYLOK_CONTEXT and the variables of the flags that were given have pylok there talk to
the same server in the same way.

When the hold cannot be renewed, because the server cannot be reached, the command
gets SIGTERM --grace before the hold ends, and SIGKILL before it has ended: nobody
else has the lock while the command runs. When somebody has broken the hold, SIGTERM
comes at once and SIGKILL after --grace. The exit code is 4. While the command is
stopped from the keyboard, the lock is not renewed. Processes that the command leaves
behind when it ends by itself go on, without the lock.

With --keep-on-failure the hold stays when the command fails, without an end, and its
msg says which command failed with which code: somebody has to look. With --token the
command runs under a hold that there is, which is renewed, and left to whoever has
taken it. What others ask the holder for (pylok ask) is printed, and so is a warning
before the hold is lost.

` + wantHelp + `

Before the command runs: 2 for a wrong command line, 3 when the lock cannot be had,
because it is held, frozen, or waited for by others, 4 when the hold of --token is
over, 5 when the server cannot be reached, 126 and 127 for a command that cannot be
executed or found.

` + dataHelp,
		Example: `  pylok run lb/server-1 --wait 5m -- ./deploy --canary
  pylok run nightly-backup -- sh -c 'backup --fence "$PYLOK_TOKEN"'
  pylok run --any 'patch/slot-{1..3}' --wait forever -- ./patch server-17
  pylok run web db cache --wait 10m --keep-on-failure -- ./deploy`,
		Args:                  runArgs,
		DisableFlagsInUseLine: true,
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			if cmd.ArgsLenAtDash() < 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	cmd.Flags().SortFlags = false
	ttl := duration(15 * time.Second)
	cmd.Flags().Var(&ttl, "ttl", "how long the lock stays held when pylok is killed or cut off from the server")
	var grace duration
	cmd.Flags().Var(&grace, "grace", "how long the command has to end when the lock is lost (default 5s, or a third of --ttl if that is less)")
	want := addWantFlags(cmd)
	keep := cmd.Flags().Bool("keep-on-failure", false, "when the command fails, the hold stays, without an end, and says so")
	token := cmd.Flags().Uint64("token", 0, "run under the hold of NAME with this token `N`, and leave it when the command ends")
	holder := p.holderFlag(cmd, "who takes the lock, as `TEXT`", "you@host/PROCESS-ID", ownHolder)
	data := addDataFlags(cmd, "the data")
	cmd.Flags().Lookup("data-file").Usage = "take the data from a YAML or JSON `FILE`"
	must(cmd.RegisterFlagCompletionFunc("ttl", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("grace", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("token", cobra.NoFileCompletions))

	cmd.RunE = p.command(func(ctx context.Context, c *client.Client, args []string) error {
		dash := cmd.ArgsLenAtDash()
		wanted, err := want.read(args[:dash])
		if err != nil {
			return err
		}
		command := args[dash:]
		if want.reason != "" && !want.throughFreeze && !want.replaceStale {
			return usagef("--reason is for --through-freeze and --replace-stale here; --msg tells others what the lock is for")
		}
		if cmd.Flags().Changed("token") {
			if *token == 0 {
				return usagef("--token 0 is no hold's; give the token that pylok lock printed")
			}
			for _, flag := range []string{"ttl", "wait", "any", "shared", "limit", "through-freeze", "replace-stale", "reason", "on-expiry", "refuse-manual", "holder", "data", "data-file", "msg"} {
				if cmd.Flags().Changed(flag) {
					return usagef("--token is for a hold that there is, and --%s for taking one; give one of them", flag)
				}
			}
			switch {
			case wanted.isSet():
				return usagef("--token is for one hold; give one name")
			case *keep:
				return usagef("--token leaves the hold to whoever has taken it, whether the command fails or not; --keep-on-failure is for a hold that pylok run takes")
			}
		}
		if ttl == 0 {
			return usagef("--ttl must be more than 0: a lock that did not end by itself would outlive a crash")
		}
		if !cmd.Flags().Changed("grace") {
			grace = min(duration(longestGrace), ttl/graceOfTTL)
		} else if *token != 0 && grace > 0 { // Adopt knows the ttl
		} else if grace == 0 || grace > ttl/2 {
			return usagef("--grace must be more than 0 and at most half of --ttl, which is %s", &ttl)
		}
		if data.file == "-" {
			return usagef("--data-file -: the standard input is the command's; give a file")
		}
		fields, err := data.read(ctx, p.stdin)
		if err != nil {
			return err
		}
		document, err := lock.NewData(fields.AsMap())
		if err != nil {
			return err
		}
		path, err := lookUp(command[0])
		if err != nil {
			return err
		}
		r := &runner{
			program: p, client: c, wanted: wanted, token: lock.Token(*token), path: path, command: command,
			grace: time.Duration(grace), keepOnFailure: *keep,
		}
		if *token != 0 {
			r.ownGrace = !cmd.Flags().Changed("grace")
			return r.run(ctx, 0)
		}
		options := append(want.options(wanted),
			client.WithTTL(time.Duration(ttl)), client.WithMargin(time.Duration(grace)),
			client.WithHolder(holder()), client.WithData(document), client.WithRequestID(rand.Text()))
		return r.run(ctx, time.Duration(want.wait), options...)
	})
	return cmd
}

// runArgs is for NAME -- COMMAND [ARG]...
func runArgs(cmd *cobra.Command, args []string) error {
	const form = "pylok run NAME -- COMMAND [ARG]..."
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 || dash == 0 && !cmd.Flags().Changed("any"):
		return usagef("give the name of a lock: %s", form)
	case dash < 0:
		return usagef("write -- before the command: %s", form)
	case dash == len(args):
		return usagef("give a command to run: %s", form)
	}
	return nil // want reads the names
}

// lookUp returns the path of a command.
func lookUp(command string) (string, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return "", cannotStart(command, err)
	}
	return path, nil
}

// cannotStart is the error for a command that does not begin to run.
func cannotStart(command string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &exitError{exitNotFound, "command not found: " + command}
	}
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err
	}
	if execError, ok := errors.AsType[*exec.Error](err); ok {
		err = execError.Err
	}
	return &exitError{exitNotExecutable, fmt.Sprintf("cannot execute %s: %v", command, err)}
}

// runner runs one command under one lock, or a set.
type runner struct {
	*program
	client        *client.Client
	wanted        wanted
	token         lock.Token // of a hold that there is; 0: one is taken
	path          string     // of the command
	command       []string   // as it was given, with its arguments
	grace         time.Duration
	ownGrace      bool // nobody gave a grace, so the ttl of a hold that there is says what it is
	keepOnFailure bool

	signals   chan os.Signal // that go on to the command
	continued chan os.Signal // this process goes on after it was stopped
	children  chan os.Signal // the command may have ended or stopped

	hold     kept
	holds    []*client.Hold // that it is made of, in name order
	asked    <-chan client.Ask
	atRisk   <-chan error
	group    *group
	lost     error            // why the lock was lost; nil: it was not
	deadline time.Time        // when it was lost: the command's time is over then, or
	reserve  time.Duration    // when no more than this is left of the lease; zero: it was over before
	kill     <-chan time.Time // when it was lost: it is time to look whether it is over
	killed   bool

	words chan func() // what is to be said; nil: it is said at once
}

// kept is what the command runs under: a Hold, or a Set.
type kept interface {
	Done() <-chan struct{}
	Err() error
	Asked() <-chan client.Ask
	AtRisk() <-chan error
	Release(ctx context.Context, options ...client.ReleaseOption) error
}

// Whoever should read what is said may stall, and that must not keep a command from
// being killed.
const (
	maxWords = 64          // that wait to be said; more are dropped
	wordsFor = time.Second // how long they may take where it is waited for
)

// sayAside makes say wait for nobody. The function that it returns is to be called in
// the end.
func (r *runner) sayAside() (finish func()) {
	words := make(chan func(), maxWords)
	r.words = words
	go func() {
		for speak := range words {
			speak()
		}
	}()
	return func() {
		r.finishWords()
		r.words = nil
		close(words)
	}
}

// say writes a line for the person at the terminal.
func (r *runner) say(format string, args ...any) {
	if r.words == nil {
		r.program.say(format, args...)
		return
	}
	select {
	case r.words <- func() { r.program.say(format, args...) }:
	default:
	}
}

// finishWords waits until all is said, but not for whoever does not read it.
func (r *runner) finishWords() {
	said := make(chan struct{})
	select {
	case r.words <- func() { close(said) }:
	default:
		return
	}
	select {
	case <-said:
	case <-time.After(wordsFor):
	}
}

// passedOn are the signals that go on to the command. Before it runs they end pylok,
// but for SIGTSTP, which does what it always does.
var passedOn = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
}

// run takes the lock, runs the command and releases the lock. The error that it
// returns has the exit code of them all.
func (r *runner) run(ctx context.Context, wait time.Duration, options ...client.AcquireOption) error {
	r.signals = make(chan os.Signal, 16)
	for _, s := range passedOn {
		if !signal.Ignored(s) { // by nohup, or by a shell for what runs in its background: the command ignores it too
			signal.Notify(r.signals, s)
		}
	}
	defer signal.Stop(r.signals)
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if err := r.acquire(ctx, leave, wait, options); err != nil {
		return err
	}
	defer r.sayAside()()
	code, err := r.execute()
	return r.release(code, err)
}

// acquire takes the lock. A signal ends it, by leave, and then the lock is not held.
func (r *runner) acquire(ctx context.Context, leave context.CancelCauseFunc, wait time.Duration, options []client.AcquireOption) error {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-r.signals:
			leave(interrupted{s.(syscall.Signal)})
		case <-over:
		}
	}()
	err := r.take(ctx, r.client, r.wanted, wait, func(wait time.Duration) (err error) {
		ctx, cancel := r.withTimeout(ctx, wait)
		defer cancel()
		switch options := append(options, client.WithWait(wait)); {
		case r.token != 0:
			err = r.adopt(ctx)
		case r.wanted.isSet():
			var set *client.Set
			if set, err = r.client.AcquireSet(ctx, r.wanted.names, options...); err == nil {
				r.hold, r.holds = set, set.Holds()
			}
		default:
			var hold *client.Hold
			if hold, err = r.client.Acquire(ctx, r.wanted.names[0], options...); err == nil {
				r.hold, r.holds = hold, []*client.Hold{hold}
			}
		}
		return err
	})
	close(over)
	<-ended
	if _, signaled := errors.AsType[interrupted](context.Cause(ctx)); signaled {
		if err == nil && r.token == 0 {
			r.complain(r.hold.Release(ctx))
		}
		return &exitError{failureCode(ctx), mayBeLocked(err)}
	}
	if lost, ok := errors.AsType[*client.LostError](err); ok { // a hold that there was
		return &exitError{exitNotHeld, printableErrors(lost)}
	}
	return r.explainHeld(err, r.wanted, wait)
}

// adopt goes on under a hold that there is.
func (r *runner) adopt(ctx context.Context) error {
	l, err := r.client.Status(ctx, r.wanted.names[0])
	switch {
	case err != nil:
		return err
	case r.ownGrace:
		r.grace = longestGrace
		if l.TTL > 0 {
			r.grace = min(longestGrace, l.TTL/graceOfTTL)
		}
	case l.TTL > 0 && r.grace > l.TTL/2:
		return usagef("--grace must be at most half of the hold's ttl, which is %s", formatDuration(l.TTL))
	}
	hold, err := r.client.Adopt(ctx, r.wanted.names[0], r.token, client.WithMargin(r.grace))
	if err == nil {
		r.hold, r.holds = hold, []*client.Hold{hold}
	}
	return err
}

// names returns the names of the holds, with blanks between, and tokens their tokens.
func (r *runner) names() string {
	names := make([]string, len(r.holds))
	for i, h := range r.holds {
		names[i] = h.Lock().Name.String()
	}
	return strings.Join(names, " ")
}

func (r *runner) tokens() string {
	tokens := make([]string, len(r.holds))
	for i, h := range r.holds {
		tokens[i] = strconv.FormatUint(uint64(h.Token()), 10)
	}
	return strings.Join(tokens, " ")
}

// leaseLeft returns how long the lease that ends first has to go.
func (r *runner) leaseLeft() time.Duration {
	left := r.holds[0].LeaseLeft()
	for _, h := range r.holds[1:] {
		left = min(left, h.LeaseLeft())
	}
	return left
}

// execute runs the command to its end and returns its exit code.
func (r *runner) execute() (code int, err error) {
	// The kernel sends the command the signal for its parent's death when the
	// thread that started it ends, so that must be one that does not.
	runtime.LockOSThread()
	r.children = make(chan os.Signal, 1)
	signal.Notify(r.children, syscall.SIGCHLD)
	r.continued = make(chan os.Signal, 1)
	signal.Notify(r.continued, syscall.SIGCONT)
	signal.Notify(r.signals, syscall.SIGTSTP)

	if err := r.hold.Err(); err != nil {
		return 0, &exitError{exitNotHeld, printableErrors(err) + "\nthe command was not started"}
	}
	environment := exec.Cmd{Env: append(os.Environ(),
		nameVariable+"="+r.names(),
		tokenVariable+"="+r.tokens())}
	for _, variable := range append(r.handedOn(), [2]string{addressVariable, r.address}) {
		environment.Env = append(environment.Env, variable[0]+"="+variable[1])
	}
	if r.group, err = startGroup(r.path, r.command, environment.Environ()); err != nil {
		return 0, cannotStart(r.command[0], err)
	}
	defer r.group.close()
	code, err = r.supervise()
	switch {
	case r.lost != nil:
		r.endGroup()
	case r.group.isAlive():
		r.say("pylok: processes that the command left behind go on without %s", r.names())
	}
	return code, err
}

// supervise looks after the command until it ends, and returns its exit code.
func (r *runner) supervise() (code int, err error) {
	r.asked, r.atRisk = r.hold.Asked(), r.hold.AtRisk()
	for {
		over := r.hold.Done()
		if r.lost != nil {
			over = nil
		}
		var next func() error
		select {
		case <-over:
		case ask, ok := <-r.asked:
			r.hear(ask, ok)
		case err, ok := <-r.atRisk:
			r.warn(err, ok)
		case s := <-r.signals:
			next = func() error { return r.group.signal(s.(syscall.Signal)) }
		case <-r.continued:
			next = r.goOn
		case <-r.kill:
			next = r.killInTime
		case <-r.children:
		}
		// This comes before all else: a process that wakes up after its lease has
		// run out must not do a thing under it.
		r.checkLock()
		if next != nil {
			r.complain(next())
		}
		for {
			status, changed, err := r.group.poll()
			switch {
			case err != nil:
				return exitFailed, err
			case !changed:
			case status.Exited():
				return status.ExitStatus(), nil
			case status.Signaled():
				return exitSignaled + int(status.Signal()), nil
			case status.Stopped():
				r.stopped(status.StopSignal())
			}
			if !changed {
				break
			}
		}
	}
}

// hear tells the person what is asked of the holder.
func (r *runner) hear(ask client.Ask, ok bool) {
	if !ok {
		r.asked = nil
		return
	}
	who := ask.Actor
	if who == "" {
		who = "somebody who gave no name"
	}
	r.say("pylok: %s asks for %s: %s", who, ask.Name, strings.Join(strings.Fields(ask.Message), " "))
}

// warn tells the person that the hold is about to be lost.
func (r *runner) warn(err error, ok bool) {
	if !ok {
		r.atRisk = nil
		return
	}
	r.say("pylok: %s cannot be renewed, and is lost in %s if that goes on: %v", r.names(), roughly(r.leaseLeft()), err)
}

// checkLock begins to end the command when the lock is lost.
func (r *runner) checkLock() {
	if r.lost != nil {
		return
	}
	if r.lost = r.hold.Err(); r.lost == nil {
		return
	}
	r.deadline = time.Now().Add(r.grace)
	if r.leaseLeft() > 0 {
		r.reserve = r.grace / killEarly
	}
	r.lookAgain()
	err := r.group.signal(syscall.SIGTERM)
	if err == nil {
		err = r.group.signal(syscall.SIGCONT) // what is stopped would not see it
	}
	r.say("pylok: %s\nstopping the command", printableErrors(r.lost))
	r.complain(err)
}

// timeLeft returns how long a command that has lost its lock has before it is killed.
func (r *runner) timeLeft() time.Duration {
	left := time.Until(r.deadline)
	if r.reserve > 0 {
		left = min(left, r.leaseLeft()-r.reserve)
	}
	return left
}

// lookAgain sets kill. Timers stand still in suspend, and the lease does not, so it looks
// now and then.
func (r *runner) lookAgain() { r.kill = time.After(min(r.timeLeft(), time.Second)) }

// killInTime ends a command that has not ended in time.
func (r *runner) killInTime() error {
	if r.timeLeft() > 0 {
		r.lookAgain()
		return nil
	}
	r.killed = true
	err := r.group.signal(syscall.SIGKILL)
	r.say("pylok: the command has not ended in time; killing it")
	return err
}

// endGroup ends what a command has left behind that has lost its lock. What is killed is
// not waited for: it goes when init gets round to it.
func (r *runner) endGroup() {
	for !r.killed && r.group.isAlive() {
		time.Sleep(10 * time.Millisecond) // nothing tells of the end of other processes
		if r.timeLeft() <= 0 {
			r.complain(r.killInTime())
		}
	}
}

// stopped does what a shell expects of its job when the command stops: give it back
// the terminal, and stop too. Where no shell does that, a stopped command is a slow
// one: it keeps the lock.
func (r *runner) stopped(by syscall.Signal) {
	if r.lost != nil {
		r.complain(r.group.signal(syscall.SIGCONT))
		return
	}
	if r.group.wantsTerminal(by) {
		r.complain(r.group.goOn())
		return
	}
	if !r.group.isJob(by) {
		return
	}
	r.say("pylok: stopped; %s is not renewed meanwhile, and is lost after %s", r.names(), formatDuration(r.holds[0].Lock().TTL-r.grace))
	r.finishWords()
	r.group.takeTerminal()
	select {
	case <-r.continued: // an old one
	default:
	}
	wentOn, err := stopJob()
	r.complain(err)
	select {
	case <-r.continued:
	case <-time.After(stopWithin):
	}
	wentOn()
	r.checkLock()
	r.complain(r.goOn())
}

// goOn lets a stopped command go on.
func (r *runner) goOn() error { return r.group.goOn() }

// complain says what could not be done to the command.
func (r *runner) complain(err error) {
	if err != nil {
		r.say("pylok: %s", printableErrors(err))
	}
}

// release releases the lock and returns the error for the exit code, that of the
// command or of err.
func (r *runner) release(code int, err error) error {
	lostWith := func(lost error) error {
		if r.lost != nil {
			return &exitError{exitNotHeld, ""} // checkLock has said why
		}
		return &exitError{exitNotHeld, fmt.Sprintf("%s\nthe command may have ended without it, with exit code %d", printableErrors(lost), code)}
	}
	keeps := r.keepOnFailure && (code != 0 || err != nil)
	if keeps || r.token != 0 { // whoever has taken it releases it
		lost := r.hold.Err() // before a hold that is kept goes on without this one
		if keeps {
			r.keep(code, err)
		}
		switch {
		case err != nil:
			return err
		case lost != nil:
			return lostWith(lost)
		}
		return &exitError{code, ""}
	}
	var options []client.ReleaseOption
	if err != nil {
		options = append(options, client.WithReason("the command could not be run"))
	} else if code != 0 {
		options = append(options, client.WithReason(fmt.Sprintf("the command ended with exit code %d", code)))
	}
	released := r.hold.Release(context.Background(), options...)
	lost := errors.Is(released, client.ErrLost)
	switch {
	case err != nil:
		return err
	case lost:
		return lostWith(released)
	}
	r.complain(released)
	return &exitError{code, ""}
}

// keep has the holds that stand stay, without an end, because the command has failed: they
// say so.
func (r *runner) keep(code int, err error) {
	what := fmt.Sprintf("%s failed with exit code %d", shellCommand(r.command), code)
	if err != nil {
		what = fmt.Sprintf("%s could not be run: %v", shellCommand(r.command), err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveBackWithin)
	defer cancel()
	for _, h := range r.holds {
		if h.Err() != nil {
			continue
		}
		kept, err := r.keepHold(ctx, h, what)
		if err != nil {
			r.complain(fmt.Errorf("%s cannot be kept, and ends when its time is over: %w", h.Lock().Name, err))
			continue
		}
		r.say("pylok: %s stays locked, with token %d: %s\nrelease it when it is safe: pylok unlock %s --token %d", kept.Name, kept.Token, what, kept.Name, kept.Token)
	}
}

// keepHold hands a hold over to its own holder, so that nothing renews it and it does not
// end.
func (r *runner) keepHold(ctx context.Context, h *client.Hold, what string) (lock.Lock, error) {
	l := h.Lock()
	fields := l.Data.Map()
	if before := l.Data.String("msg"); before != "" {
		fields["msg"] = what + " (" + before + ")"
	} else {
		fields["msg"] = what
	}
	data, err := lock.NewData(fields)
	if err != nil {
		return lock.Lock{}, err
	}
	answer, err := r.client.HandOver(ctx, lock.HandOverRequest{
		Name: l.Name, Token: h.Token(), Holder: l.Holder, Caller: l.Caller, From: l.Holder, Never: true, Data: &data, Reason: what, RequestID: rand.Text(),
	})
	return answer.Lock, err
}

// mostCommand is how many bytes of a command are put into a message.
const mostCommand = 256

// shellCommand returns a command as a person would type it, or its beginning.
func shellCommand(command []string) string {
	words := make([]string, len(command))
	for i, word := range command {
		words[i] = word
		if word == "" || strings.ContainsAny(word, " \t\n\"'\\$`&|;<>()*?[]#~") {
			words[i] = shellQuote(word)
		}
	}
	text := strings.Join(words, " ")
	if len(text) > mostCommand {
		text = strings.ToValidUTF8(text[:mostCommand], "") + "..."
	}
	return text
}
