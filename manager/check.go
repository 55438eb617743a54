package manager

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pylok/pylok/lock"
)

// Limits of a request.
const (
	maxHolderBytes    = 256
	maxRequestIDBytes = 128
	maxReasonBytes    = 1024
	minTTL            = 100 * time.Millisecond
	maxTTL            = 366 * 24 * time.Hour
)

// checkLock holds a request to its limits and fills in what follows from it.
func (m *Manager) checkLock(request lock.LockRequest) (lock.LockRequest, error) {
	if request.Name.IsZero() {
		_, err := lock.ParseName("")
		return request, err
	}
	if err := checkText("holder", request.Holder, maxHolderBytes); err != nil {
		return request, err
	}
	if err := checkText("request_id", request.RequestID, maxRequestIDBytes); err != nil {
		return request, err
	}
	if err := checkExpiry(request.TTL, &request.ExpireTime); err != nil {
		return request, err
	}
	if request.Wait < 0 || request.Wait > m.config.MaxWait {
		return request, lock.Invalid("wait", fmt.Sprintf("%v is out of range; 0 to %v are allowed", request.Wait, m.config.MaxWait))
	}
	if request.TTL == 0 && request.ExpireTime.IsZero() {
		var problem string
		if request.ExpireTime, problem = request.Data.ExpireTime(time.Now()); problem != "" {
			m.config.Logger.Warn("expire is not acted upon", "name", request.Name, "problem", problem)
		}
	}
	return request, nil
}

// checkExpiry holds the terms of a lease to their limits and rounds the wall time
// to what is kept of it.
func checkExpiry(ttl time.Duration, expireTime *time.Time) error {
	switch {
	case ttl != 0 && !expireTime.IsZero():
		return lock.Invalid("ttl", "give ttl or expire_time, not both")
	case ttl != 0 && (ttl < minTTL || ttl > maxTTL):
		return lock.Invalid("ttl", fmt.Sprintf("%v is out of range; 100ms to 8784h (366 days) are allowed", ttl))
	case !expireTime.IsZero() && !expireTime.After(time.Now()):
		return lock.Invalid("expire_time", fmt.Sprintf("%s is past", expireTime.UTC().Format(time.RFC3339)))
	case !expireTime.IsZero() && lock.CeilMillisecond(*expireTime).Year() > lock.MaxYear:
		return lock.Invalid("expire_time", fmt.Sprintf("the year is past %d", lock.MaxYear))
	}
	if !expireTime.IsZero() {
		*expireTime = lock.CeilMillisecond(*expireTime)
	}
	return nil
}

// checkText holds a one-line text to its limits.
func checkText(field, text string, most int) error {
	switch {
	case len(text) > most:
		return lock.Invalid(field, fmt.Sprintf("it is %d bytes long; at most %d are allowed", len(text), most))
	case !utf8.ValidString(text):
		return lock.Invalid(field, "it is not valid UTF-8")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return lock.Invalid(field, fmt.Sprintf("%s has a control character at byte %d", lock.QuoteShort(text), i))
	}
	return nil
}

// checkReason holds the reason of an Unlock to its limits; it may have lines, and
// where it is required, something that can be seen.
func checkReason(reason string, required bool) error {
	switch {
	case required && !isVisible(reason):
		return lock.Invalid("reason", "breaking a hold (force) needs one: say why, for its holder and for the history")
	case len(reason) > maxReasonBytes:
		return lock.Invalid("reason", fmt.Sprintf("it is %d bytes long; at most %d are allowed", len(reason), maxReasonBytes))
	case !utf8.ValidString(reason):
		return lock.Invalid("reason", "it is not valid UTF-8")
	}
	return nil
}

// isVisible reports whether there is anything to be seen in a text.
func isVisible(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) })
}

// heldError refuses a lock that is held, after a wait if there was one.
func heldError(l lock.Lock, waited time.Duration) error {
	after := ""
	if waited > 0 {
		after = fmt.Sprintf(" after waiting %v", waited.Round(time.Millisecond))
	}
	if !l.Held() {
		return &lock.Error{
			Reason:  lock.ErrLockHeld,
			Message: fmt.Sprintf("%s was not granted%s and has just become free; ask again", l.Name, after),
			Lock:    &l,
		}
	}
	return &lock.Error{
		Reason:  lock.ErrLockHeld,
		Message: fmt.Sprintf("%s%s. Wait for it (wait), or break the hold on purpose (Unlock with force and a reason)", describeHold(l), after),
		Lock:    &l,
	}
}

func tooManyWaiters(message string) error {
	return &lock.Error{Reason: lock.ErrTooManyWaiters, Message: message + "; ask again later"}
}

func notLocked(name lock.Name) error {
	return &lock.Error{
		Reason:  lock.ErrNotLocked,
		Message: fmt.Sprintf("%s is not locked", name),
	}
}

func shuttingDown() error {
	return &lock.Error{
		Reason:  lock.ErrShuttingDown,
		Message: "the server is shutting down; nothing changed, ask again when it is back",
	}
}

// describeHold says who holds a lock, since when, until when and why.
func describeHold(l lock.Lock) string {
	var b strings.Builder
	holder := l.Holder
	if holder == "" {
		holder = "somebody who gave no name"
	}
	if l.Caller != "" && l.Caller != l.Holder {
		holder += " (" + l.Caller + ")"
	}
	fmt.Fprintf(&b, "%s is held by %s since %s", l.Name, holder, l.AcquireTime.UTC().Format(time.RFC3339))
	if !l.Deadline.IsZero() {
		fmt.Fprintf(&b, " until %s", l.Deadline.UTC().Format(time.RFC3339))
	}
	if msg := l.Data.String("msg"); msg != "" {
		fmt.Fprintf(&b, " (%s)", lock.QuoteShort(msg))
	}
	if l.Problem != "" {
		fmt.Fprintf(&b, " (its file cannot be read: %s)", l.Problem)
	}
	return b.String()
}
