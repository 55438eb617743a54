package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// The exit codes; run has the command's own beside them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitHeld        = 3 // held by somebody else, or --ensure-unlock found it locked
	exitNotHeld     = 4 // not held by you, --ensure-lock found it unlocked, or the rules do not allow it (may)
	exitUnreachable = 5 // the server gave no answer

	// As in a shell:
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignaled      = 128 // and the signal's number
)

// exitError is an error whose text is what the person needs to read.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// usagef returns an error in what the person typed, in one helpful sentence.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Sprintf(format, args...)}
}

// asUsageError makes an error that is not an exitError one in the usage.
func asUsageError(err error) error {
	if _, ok := errors.AsType[*exitError](err); ok {
		return err
	}
	return usagef("%v", err)
}

// report tells the person of an error and returns the exit code.
func (p *program) report(err error) int {
	code, text := p.explain(err)
	if text != "" {
		p.say("pylok: %s", text)
	}
	return code
}

// explain returns the exit code for an error and what to say of it.
func (p *program) explain(err error) (code int, text string) {
	if err == nil {
		return exitDone, ""
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code, exit.text
	}
	if unknown, ok := errors.AsType[*client.OutcomeUnknownError](err); ok {
		code, text = p.explain(unknown.Err)
		text, _, _ = strings.Cut(text, "\n")
		return code, text + "\n" + mayBeLocked(unknown)
	}
	if refusal, ok := errors.AsType[*lock.Error](err); ok {
		return refusalCode(refusal.Reason), printable(refusal.Message) + p.howToProve(refusal.Reason)
	}
	if unreachable, ok := errors.AsType[*client.UnreachableError](err); ok {
		if text := p.explainTLS(err); text != "" {
			return exitUnreachable, text
		}
		switch {
		case unreachable.Sent:
			return exitUnreachable, err.Error() + p.unknownOutcome()
		}
		if p.foundSocket {
			return exitUnreachable, err.Error() + "\nNobody else is asked, for another server may have other locks. Is pylokd running? --address or PYLOK_ADDRESS say where else to look, such as " + client.DefaultAddress + "."
		}
		return exitUnreachable, err.Error() + "\nIs pylokd running there? --address or PYLOK_ADDRESS say where to look."
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitFailed, fmt.Sprintf("the server at %s has not answered within %s; --timeout gives it longer", p.address, &p.timeout) + p.unknownOutcome()
	}
	if unsupported, ok := errors.AsType[*client.UnsupportedError](err); ok {
		return exitFailed, unsupported.Error()
	}
	if answer, ok := status.FromError(err); ok {
		return exitFailed, fmt.Sprintf("the server at %s failed: %s", p.address, answer.Message())
	}
	return exitFailed, err.Error()
}

// explainTLS says what keeps TLS from coming about, and what to do; empty: nothing is
// known to.
func (p *program) explainTLS(err error) string {
	unreachable, _ := errors.AsType[*client.UnreachableError](err)
	why := unreachable.Mismatch()
	ca, cert := p.settings.of(caSetting), p.settings.of(certSetting)
	switch {
	case why == nil:
		return ""
	case errors.Is(why, client.ErrServerSpeaksTLS):
		return fmt.Sprintf("the server at %s speaks TLS: add --tls, or --ca FILE for a certificate of your own CA", p.address)
	case errors.Is(why, client.ErrServerSpeaksPlaintext):
		return fmt.Sprintf("the server at %s does not speak TLS: leave --tls and --ca out (for another machine --insecure is needed then)", p.address)
	case errors.Is(why, client.ErrServerTooOld):
		return fmt.Sprintf("the server at %s speaks no TLS that is new enough: have it speak TLS 1.3, or add --tls-min-version 1.2", p.address)
	case errors.Is(why, client.ErrUnknownAuthority) && ca.value != "":
		return fmt.Sprintf("the certificate of the server at %s is not from a CA in %s (%s): give the file of the CA that it is from", p.address, ca.value, ca.by)
	case errors.Is(why, client.ErrUnknownAuthority):
		return fmt.Sprintf("the certificate of the server at %s is from a CA that this system does not know: add --ca FILE with the certificate of that CA", p.address)
	case errors.Is(why, client.ErrWrongServerName):
		return fmt.Sprintf("the server at %s has a certificate for another name (%v): give its --address by a name of the certificate", p.address, why)
	case errors.Is(why, client.ErrServerCertificateExpired):
		return fmt.Sprintf("the server at %s has a certificate that is not valid now (%v): who runs the server has to renew it, unless the clock here is wrong", p.address, why)
	case errors.Is(why, client.ErrCertificateRequired):
		return fmt.Sprintf("the server at %s wants a certificate of yours: add --cert FILE and --key FILE", p.address)
	case errors.Is(why, client.ErrCertificateRefused):
		return fmt.Sprintf("the server at %s does not take your certificate %s (%s): %v", p.address, cert.value, cert.by, why)
	}
	return ""
}

// howToProve is the line to add when the server does not know who asks.
func (p *program) howToProve(reason lock.Reason) string {
	if reason != lock.ErrUnauthenticated {
		return ""
	}
	if p.settings != nil && p.settings.proof != "" {
		return "\n" + p.settings.proof
	}
	return "\nSay who you are with --token-file FILE, or --cert FILE and --key FILE."
}

// mayBeLocked says what may have come of a request whose error is err; empty: nothing.
func mayBeLocked(err error) string {
	unknown, ok := errors.AsType[*client.OutcomeUnknownError](err)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s may be locked by this request; pylok status %s tells", unknown.Name, unknown.Name)
}

// unknownOutcome is the line to add when the answer to a change is lost.
func (p *program) unknownOutcome() string {
	if !p.changing {
		return ""
	}
	return "\nThe server may or may not have done what you asked; pylok status NAME tells."
}

// failureCode returns the exit code for what failed: that of the signal that has ended
// ctx, if one has.
func failureCode(ctx context.Context) int {
	if signaled, ok := errors.AsType[interrupted](context.Cause(ctx)); ok {
		return exitSignaled + int(signaled.signal)
	}
	return exitFailed
}

// untold returns the error for what was done and, because of err, not told. Without an
// err it was.
func untold(done string, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitFailed, fmt.Sprintf("%s, but that cannot be told: %v", done, err)}
}

// refusalCode returns the exit code for a refusal.
func refusalCode(reason lock.Reason) int {
	switch reason {
	case lock.ErrLockHeld:
		return exitHeld
	case lock.ErrNotHolder, lock.ErrNotLocked:
		return exitNotHeld
	case lock.ErrInvalidName, lock.ErrInvalidArgument:
		return exitUsage
	case lock.ErrShuttingDown:
		return exitUnreachable
	}
	return exitFailed
}
