package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// executeGrace is how long a command of --exec that was told to end may take.
const executeGrace = 5 * time.Second

// execute runs the COMMAND of watch --exec for an event. That it fails is reported and
// no error: the watch goes on. The end of ctx tells it to end.
func (p *program) execute(ctx context.Context, command string, event *pylokv1.Event) error {
	line, err := jsonLine(event)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdin = bytes.NewReader(append(line, '\n'))
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	cmd.Env = os.Environ()
	for _, variable := range append(p.handedOn(), [2]string{addressVariable, p.address}) {
		cmd.Env = append(cmd.Env, variable[0]+"="+variable[1])
	}
	token := fmt.Sprint(event.GetLock().GetToken())
	for name, value := range map[string]string{
		"PYLOK_EVENT_TYPE": eventWord(event),
		"PYLOK_CAUSE":      causeWord(event),
		nameVariable:       event.GetLock().GetName(),
		"PYLOK_HOLDER":     event.GetLock().GetHolder(),
		tokenVariable:      token,
		eventVariable:      token,
		"PYLOK_REVISION":   fmt.Sprint(event.GetRevision()),
		"PYLOK_REASON":     event.GetReason(),
	} {
		cmd.Env = append(cmd.Env, name+"="+strings.ReplaceAll(value, "\x00", "")) // no environment can hold a NUL
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = executeGrace
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // that is a process left behind
		p.say("pylok: --exec failed for revision %d, %s %s: %v", event.GetRevision(), event.GetLock().GetName(), eventWord(event), err)
	}
	return nil
}

// causeWord returns the word for why a change came about; empty: it is no change.
func causeWord(event *pylokv1.Event) string {
	if event.GetCause() == pylokv1.EventCause_EVENT_CAUSE_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(event.GetCause().String(), "EVENT_CAUSE_"))
}
