package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// style is how text is made for the place that it goes to.
type style struct {
	now    time.Time // in the zone that times are shown in
	colour bool
	width  int // columns; 0: no limit
}

// style returns the style for the standard output.
func (p *program) style() style { return p.styleFor(p.stdout) }

// styleFor returns the style for an output: plain unless it is a terminal.
func (p *program) styleFor(output io.Writer) style {
	s := style{now: p.now()}
	if !isTerminal(output) {
		return s
	}
	if width, _, err := term.GetSize(int(output.(*os.File).Fd())); err == nil {
		s.width = width
	}
	s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

func isTerminal(output io.Writer) bool {
	file, ok := output.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// Colours, as terminals number them.
const (
	green  = 32
	yellow = 33
	cyan   = 36
)

func (s style) paint(colour int, text string) string {
	if !s.colour {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
}

// The forms of a time for people.
const (
	dateTime  = "2006-01-02 15:04:05"
	clockTime = "15:04:05"
)

// when writes a time and how far it is from now.
func (s style) when(t time.Time) string {
	text := t.In(s.now.Location()).Format(dateTime)
	if s.now.Sub(t).Abs() < time.Second {
		return text + " (just now)"
	}
	if t.After(s.now) {
		return fmt.Sprintf("%s (in %s)", text, ahead(t.Sub(s.now)))
	}
	return fmt.Sprintf("%s (%s ago)", text, roughly(s.now.Sub(t)))
}

// lockBlocks shows locks in full.
func (s style) lockBlocks(locks []*pylokv1.Lock) string {
	var b strings.Builder
	for _, l := range locks {
		b.WriteString(s.lockBlock(l))
	}
	return b.String()
}

// lockBlock shows a lock in full.
func (s style) lockBlock(l *pylokv1.Lock) string {
	var b strings.Builder
	if !isHeld(l) {
		fmt.Fprintf(&b, "%s  %s\n", printable(l.GetName()), s.paint(green, "unlocked"))
		if l.GetBlockedBy() != nil {
			b.WriteString(row("blocked", "by "+s.obstacle(l.GetBlockedBy(), l.GetSharedHolds())))
		}
		b.WriteString(s.waitersRows(l))
		return b.String()
	}
	fmt.Fprintf(&b, "%s  %s\n", printable(l.GetName()), s.paint(yellow, "locked"))
	b.WriteString(row("holder", holderOf(l.GetHolder())))
	b.WriteString(callerRow(l.GetCaller(), l.GetHolder()))
	if l.GetAcquireTime() != nil {
		b.WriteString(row("since", s.when(l.GetAcquireTime().AsTime())))
	}
	if l.GetExpireTime() != nil {
		until := s.when(l.GetExpireTime().AsTime())
		if l.GetTtl() != nil {
			until += ", unless renewed for another " + formatDuration(l.GetTtl().AsDuration())
		}
		if l.GetOnExpiry() == pylokv1.OnExpiry_ON_EXPIRY_KEEP {
			until += "; then it is stale, and kept"
		}
		b.WriteString(row("until", until))
	}
	if l.GetStaleTime() != nil {
		b.WriteString(row("stale", "since "+s.when(l.GetStaleTime().AsTime())+"; kept until somebody has looked"))
	}
	b.WriteString(row("token", fmt.Sprint(l.GetToken())))
	if l.GetLockFileLocation() != "" {
		b.WriteString(row("file", l.GetLockFileLocation()))
	}
	if l.GetTree() {
		below := "nothing below is held"
		if n := l.GetHeldBelow(); n > 0 {
			below = fmt.Sprintf("held below: %d", n)
		}
		b.WriteString(row("scope", "tree, all names below; "+below))
	}
	if set := l.GetSet(); set != nil {
		b.WriteString(row("set", fmt.Sprintf("%s, one of %d that were taken together", setText(set), set.GetSize())))
	}
	b.WriteString(s.waitersRows(l))
	if l.GetConflict() != "" {
		b.WriteString(row("conflict", l.GetConflict()))
	}
	if l.GetProblem() != "" {
		b.WriteString(row("problem", l.GetProblem()))
	}
	for _, warning := range l.GetWarnings() {
		b.WriteString(row("warning", warning))
	}
	data := l.GetData().AsMap()
	if msg, ok := data["msg"].(string); ok {
		b.WriteString(row("msg", msg))
		delete(data, "msg")
	}
	if len(data) > 0 {
		b.WriteString("  data\n")
		for line := range strings.Lines(string(toYAML(data))) {
			if line != "\n" {
				b.WriteString("    ")
			}
			b.WriteString(line)
		}
	}
	return b.String()
}

// waitersRows shows who waits for a lock.
func (s style) waitersRows(l *pylokv1.Lock) string {
	if l.GetWaiters() == 0 {
		return ""
	}
	text := row("waiters", fmt.Sprint(l.GetWaiters()))
	for _, w := range l.GetWaiting() {
		text += "    " + s.waiter(w) + "\n"
	}
	if more := int(l.GetWaiters()) - len(l.GetWaiting()); more > 0 && len(l.GetWaiting()) > 0 {
		text += fmt.Sprintf("    and %d more\n", more)
	}
	return text
}

// waiter shows who waits, at which place, for what, and how long.
func (s style) waiter(w *pylokv1.Waiter) string {
	text := fmt.Sprintf("place %d  %s", w.GetPlace(), holderOf(w.GetHolder()))
	switch {
	case w.GetShared():
		text += "  shared"
	case w.GetTree():
		text += "  tree"
	}
	if names := w.GetNames(); len(names) > 0 {
		text += "  for " + printable(strings.Join(names, " "))
	}
	if w.GetSinceTime() != nil {
		text += "  since " + s.when(w.GetSinceTime().AsTime())
	}
	if w.GetUntilTime() != nil {
		text += ", until " + s.when(w.GetUntilTime().AsTime())
	}
	if message := strings.Join(strings.Fields(w.GetMessage()), " "); message != "" {
		text += "  " + printable(message)
	}
	return text
}

// obstacle shows what keeps a free lock from being granted.
func (s style) obstacle(o *pylokv1.Obstacle, sharedHolds uint32) string {
	l := o.GetLock()
	held := func(how string) string {
		text := fmt.Sprintf("%s%s of %s", printable(l.GetName()), how, holderOf(l.GetHolder()))
		if l.GetAcquireTime() != nil {
			text += " since " + s.when(l.GetAcquireTime().AsTime())
		}
		if l.GetExpireTime() != nil {
			text += ", until " + s.when(l.GetExpireTime().AsTime())
		}
		if msg := messageOf(l); msg != "" {
			text += ": " + msg
		}
		return text
	}
	switch o.GetKind() {
	case pylokv1.ObstacleKind_OBSTACLE_KIND_TREE:
		switch {
		case l == nil:
			return "a tree above it that is about to be granted"
		case l.GetName() == "":
			return "a tree above it that you may not view"
		}
		return held(", a tree")
	case pylokv1.ObstacleKind_OBSTACLE_KIND_SHARED:
		if l.GetName() == "" {
			return fmt.Sprintf("%d shared holds", sharedHolds)
		}
		if sharedHolds > 1 {
			return fmt.Sprintf("%d shared holds, first %s", sharedHolds, held(""))
		}
		return "a shared hold, " + held("")
	}
	return "who waits: " + s.waiter(o.GetWaiter())
}

// setText names a set, as the lock file does.
func setText(set *pylokv1.SetRef) string { return fmt.Sprintf("%d/%d", set.GetId(), set.GetSize()) }

// kindText says in words which kind of hold a lock has, if not a plain one.
func kindText(l *pylokv1.Lock) string {
	var kinds []string
	if l.GetStaleTime() != nil {
		kinds = append(kinds, "stale")
	}
	if l.GetTree() {
		kinds = append(kinds, "tree")
	}
	if l.GetShared() {
		kinds = append(kinds, "shared")
	}
	if l.GetSet() != nil {
		kinds = append(kinds, "set "+setText(l.GetSet()))
	}
	return strings.Join(kinds, ", ")
}

// row shows one fact of a lock; text of several lines stays aligned.
func row(label, text string) string {
	text = strings.TrimRight(printableLines(text), "\n")
	return fmt.Sprintf("  %-7s %s\n", label, strings.ReplaceAll(text, "\n", "\n          "))
}

// callerRow shows whose a hold is, where that is more than the holder says.
func callerRow(caller, holder string) string {
	if caller == "" || caller == holder {
		return ""
	}
	return row("caller", caller)
}

// holderOf names a holder.
func holderOf(holder string) string {
	if holder == "" {
		return "(anonymous)"
	}
	return printable(holder)
}

// unlockBlock tells of a release, and who has the lock now.
func (s style) unlockBlock(released *pylokv1.UnlockResponse) string {
	l := released.GetLock()
	text := fmt.Sprintf("%s  %s  %s held it", printable(l.GetName()), s.paint(green, "unlocked"), holderOf(l.GetHolder()))
	if l.GetAcquireTime() != nil {
		text += " for " + roughly(s.now.Sub(l.GetAcquireTime().AsTime()))
	}
	text += "\n"
	switch next := released.GetNext(); {
	case isHeld(next):
		has := fmt.Sprintf("%s waited for it and has it now, with token %d", holderOf(next.GetHolder()), next.GetToken())
		if next.GetWaiters() > 0 {
			has += fmt.Sprintf("; %d more wait", next.GetWaiters())
		}
		text += row("next", has)
		if msg := messageOf(next); msg != "" {
			text += row("msg", msg)
		}
	case l.GetWaiters() > 0:
		text += row("next", fmt.Sprintf("%d waited for it; pylok status %s tells who has it now", l.GetWaiters(), l.GetName()))
	}
	return text
}

// lockTable shows held locks, a line each. What kind of hold it is has a column where there
// is something to say.
func (s style) lockTable(locks []*pylokv1.Lock) string {
	header := []string{"NAME", "HOLDER", "SINCE", "UNTIL", "KIND", "MSG"}
	const kind = 4
	rows := [][]string{header}
	hasKinds := false
	for _, l := range locks {
		msg := messageOf(l)
		switch {
		case l.GetProblem() != "":
			msg = "problem: " + printable(l.GetProblem())
		case l.GetConflict() != "":
			msg = "conflict: " + printable(l.GetConflict())
		}
		rows = append(rows, []string{
			printable(l.GetName()),
			holderOf(l.GetHolder()),
			s.timeOr(l.GetAcquireTime(), "-"),
			s.timeOr(l.GetExpireTime(), "-"),
			cmp.Or(kindText(l), "-"),
			msg,
		})
		hasKinds = hasKinds || kindText(l) != ""
	}
	if !hasKinds {
		for i := range rows {
			rows[i] = slices.Delete(rows[i], kind, kind+1)
		}
	}
	columns := len(rows[0]) - 1 // of a known width; msg takes what is left
	widths := make([]int, columns)
	for _, r := range rows {
		for i := range columns {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i := range columns {
			fmt.Fprintf(&line, "%-*s  ", widths[i], r[i])
		}
		line.WriteString(r[columns])
		b.WriteString(s.cut(strings.TrimRight(line.String(), " ")) + "\n")
	}
	return b.String()
}

// cut shortens a line to the width of the terminal.
func (s style) cut(line string) string {
	if s.width == 0 || utf8.RuneCountInString(line) <= s.width {
		return line
	}
	return string([]rune(line)[:max(s.width-3, 0)]) + "..."
}

func (s style) timeOr(t *timestamppb.Timestamp, otherwise string) string {
	if t == nil {
		return otherwise
	}
	return t.AsTime().In(s.now.Location()).Format(dateTime)
}

// messageOf returns a lock's msg on one line.
func messageOf(l *pylokv1.Lock) string {
	return printable(strings.Join(strings.Fields(l.GetData().GetFields()["msg"].GetStringValue()), " "))
}

// eventLine shows a change, such as
//
//	19:03:11  locked    lb/x  alice@ci-7  token 42  Locking App1
//
// with the date where it is not today's or dates is set.
func (s style) eventLine(event *pylokv1.Event, dates bool) string {
	at := event.GetTime().AsTime().In(s.now.Location())
	layout := clockTime
	if dates || at.Format(time.DateOnly) != s.now.Format(time.DateOnly) {
		layout = dateTime
	}
	l := event.GetLock()
	colour := map[pylokv1.EventType]int{
		pylokv1.EventType_EVENT_TYPE_LOCKED:   yellow,
		pylokv1.EventType_EVENT_TYPE_UPDATED:  cyan,
		pylokv1.EventType_EVENT_TYPE_UNLOCKED: green,
		pylokv1.EventType_EVENT_TYPE_ASKED:    cyan,
	}[event.GetType()]
	fields := []string{
		at.Format(layout),
		s.paint(colour, fmt.Sprintf("%-8s", eventWord(event))),
		printable(l.GetName()),
		holderOf(l.GetHolder()),
		fmt.Sprintf("token %d", l.GetToken()),
	}
	if previous := event.GetPreviousToken(); previous != 0 {
		fields[len(fields)-1] += fmt.Sprintf(" after %d", previous)
	}
	if kind := kindText(l); kind != "" {
		fields = append(fields, kind)
	}
	if cause := causeText(event); cause != "" {
		fields = append(fields, cause)
	}
	if msg := messageOf(l); msg != "" {
		fields = append(fields, msg)
	}
	return strings.Join(fields, "  ") + "\n"
}

// eventWord returns the word for what an event tells.
func eventWord(event *pylokv1.Event) string {
	return strings.ToLower(strings.TrimPrefix(event.GetType().String(), "EVENT_TYPE_"))
}

// causeText says why a change came about, where the holder did not just ask for it.
func causeText(event *pylokv1.Event) string {
	text := ""
	switch event.GetCause() {
	case pylokv1.EventCause_EVENT_CAUSE_REQUEST:
		if actor := event.GetActor(); actor != "" && actor != event.GetLock().GetHolder() {
			text = "by " + printable(actor)
		}
	case pylokv1.EventCause_EVENT_CAUSE_FORCED:
		text = "forced by " + holderOf(event.GetActor())
	case pylokv1.EventCause_EVENT_CAUSE_EXPIRED:
		text = "expired"
	case pylokv1.EventCause_EVENT_CAUSE_FILE:
		text = "by its file"
	}
	if event.GetType() == pylokv1.EventType_EVENT_TYPE_ASKED {
		text = "by " + holderOf(event.GetActor())
	}
	if reason := event.GetReason(); reason != "" {
		text = strings.TrimPrefix(text+": "+printable(reason), ": ")
	}
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

// infoBlock shows what a server is.
func (s style) infoBlock(info *pylokv1.InfoResponse, address string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pylokd %s at %s\n", printable(info.GetVersion()), printable(address))
	fact := func(label, text string) { fmt.Fprintf(&b, "  %-10s%s\n", label, printable(text)) }
	if info.GetRoot() != "" {
		fact("root", info.GetRoot())
	}
	fact("store", info.GetStore())
	fact("revision", fmt.Sprint(info.GetRevision()))
	if info.GetStartTime() != nil {
		fact("since", s.when(info.GetStartTime().AsTime()))
	}
	if info.GetCaller() != "" {
		you := info.GetCaller()
		if info.GetProof() != "" {
			you += " (by " + info.GetProof() + ")"
		}
		fact("you are", you)
	}
	if len(info.GetGroups()) > 0 {
		fact("groups", strings.Join(info.GetGroups(), ", "))
	}
	return b.String()
}

// heldBy says in a line who holds a lock, since when, until when and why.
func (s style) heldBy(l lock.Lock) string {
	text := fmt.Sprintf("%s since %s", holderOf(l.Holder), s.when(l.AcquireTime))
	switch {
	case !l.Deadline.IsZero():
		text += ", until " + s.when(l.Deadline)
	case l.Stale():
		text += ", stale"
	case l.Manual():
		text += ", until somebody releases it"
	}
	if msg := l.Data.String("msg"); msg != "" {
		text += ": " + strings.Join(strings.Fields(msg), " ")
	}
	return printable(text)
}

// holdRows shows what one who was refused needs to know of a hold.
func (s style) holdRows(l lock.Lock) string {
	text := row("holder", holderOf(l.Holder)) + callerRow(l.Caller, l.Holder) + row("since", s.when(l.AcquireTime))
	if !l.Deadline.IsZero() {
		text += row("until", s.when(l.Deadline))
	}
	if msg := l.Data.String("msg"); msg != "" {
		text += row("msg", msg)
	}
	if l.Problem != "" {
		text += row("problem", l.Problem)
	}
	return text
}
