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
	maxCallerBytes    = 512
	minTTL            = 100 * time.Millisecond
	maxTTL            = 366 * 24 * time.Hour
	longestWait       = 24 * time.Hour // from there on, waits without an end are allowed too
	maxLimit          = 1_000_000      // of shared holds
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
	if err := m.checkWait(request.Wait); err != nil {
		return request, err
	}
	if err := checkKind(&request); err != nil {
		return request, err
	}
	if err := checkReason(request.Reason, request.ThroughFreeze || request.ReplaceStale, "going through a freeze or replacing a stale hold (through_freeze, replace_stale)"); err != nil {
		return request, err
	}
	if request.TTL == 0 && request.ExpireTime.IsZero() {
		var problem string
		if request.ExpireTime, problem = request.Data.ExpireTime(time.Now()); problem != "" {
			m.config.Logger.Warn("expire is not acted upon", "name", request.Name, "problem", problem)
		}
	}
	return request, nil
}

// checkWait holds a wait to its limits.
func (m *Manager) checkWait(wait time.Duration) error {
	switch {
	case wait == lock.WaitForever && m.config.MaxWait < longestWait:
		return lock.Invalid("wait_forever", fmt.Sprintf("this server lets nobody wait longer than %v", m.config.MaxWait))
	case wait != lock.WaitForever && (wait < 0 || wait > m.config.MaxWait):
		return lock.Invalid("wait", fmt.Sprintf("%v is out of range; 0 to %v are allowed", wait, m.config.MaxWait))
	}
	return nil
}

// checkKind holds what a request says of its kind of hold together.
func checkKind(r *lock.LockRequest) error {
	if err := r.Name.CheckWanted(); err != nil {
		return err
	}
	switch {
	case r.Shared && (r.Tree || r.Overwrite || r.ReplaceStale):
		return lock.Invalid("shared", "a shared hold stands beside others and cannot be had with tree, overwrite or replace_stale")
	case r.Tree && (r.Overwrite || r.ReplaceStale):
		return lock.Invalid("tree", "a tree takes nobody's place; it cannot be had with overwrite or replace_stale")
	case r.Tree && r.OnExpiry == lock.Keep:
		return lock.Invalid("on_expiry", "a tree ends when its time is over; KEEP would freeze what is below for good")
	case r.Limit != 0 && !r.Shared:
		return lock.Invalid("limit", "it is for shared holds; set shared too")
	case r.Limit < 0 || r.Limit > maxLimit:
		return lock.Invalid("limit", fmt.Sprintf("%d is out of range; 0 (any number) to %d are allowed", r.Limit, maxLimit))
	case r.Drain && !r.Tree:
		return lock.Invalid("drain", "it is for trees; set tree too")
	case r.Drain && r.Wait == 0:
		return lock.Invalid("drain", "it waits until nothing below is held; say for how long (wait)")
	case r.OnExpiry != lock.End && r.OnExpiry != lock.Keep:
		return lock.Invalid("on_expiry", "it is not known")
	}
	if r.Shared {
		if _, err := r.Name.Slot(1); err != nil {
			return &lock.Error{
				Reason:  lock.ErrInvalidName,
				Field:   "name",
				Message: fmt.Sprintf("%s cannot have shared holds, whose names have a segment more: %v", lock.QuoteShort(r.Name.String()), err),
			}
		}
	}
	return nil
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
func checkReason(reason string, required bool, what string) error {
	switch {
	case required && !isVisible(reason):
		return lock.Invalid("reason", what+" needs one: say why, for its holder and for the history")
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
	if l.Stale() {
		return &lock.Error{
			Reason:  lock.ErrLockHeld,
			Message: fmt.Sprintf("%s%s. It is kept for somebody to look: who has looked takes its place (replace_stale and a reason), or ends it (Unlock with stale and a reason)", describeHold(l), after),
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

// holderOf says in words who holds a lock.
func holderOf(l lock.Lock) string {
	return lock.Waiter{Holder: l.Holder, Caller: l.Caller}.Who()
}

// describeHold says who holds a lock, since when, until when and why.
func describeHold(l lock.Lock) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is held by %s since %s", l.Name, holderOf(l), l.AcquireTime.UTC().Format(time.RFC3339))
	if l.Stale() {
		fmt.Fprintf(&b, ", stale since %s", l.StaleTime.UTC().Format(time.RFC3339))
	}
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
