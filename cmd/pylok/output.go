package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// outputFormat is the form of what goes to the standard output.
type outputFormat string

// The output formats.
const (
	textOutput outputFormat = "text"
	jsonOutput outputFormat = "json"
	yamlOutput outputFormat = "yaml"
)

var outputFormats = []string{string(textOutput), string(jsonOutput), string(yamlOutput)}

// Set implements pflag.Value.
func (f *outputFormat) Set(text string) error {
	if !slices.Contains(outputFormats, text) {
		return fmt.Errorf("the output can be %s", strings.Join(outputFormats, ", "))
	}
	*f = outputFormat(text)
	return nil
}

// String implements pflag.Value.
func (f *outputFormat) String() string { return string(*f) }

// Type implements pflag.Value; it is the word that --help shows.
func (f *outputFormat) Type() string { return "format" }

// print writes what the output format asks for: text, or the message as JSON, or
// the document as YAML. A nil document is the message.
func (p *program) print(message proto.Message, document func() map[string]any, text func(style) string) error {
	switch {
	case p.output == textOutput:
		return p.write([]byte(text(p.style())))
	case p.output == yamlOutput && document != nil:
		return p.write(toYAML(document()))
	}
	line, err := jsonLine(message)
	if err != nil {
		return err
	}
	if p.output == jsonOutput {
		return p.write(append(line, '\n'))
	}
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil {
		return err
	}
	return p.write(toYAML(fields))
}

// printOne is print for one of several messages: in YAML each is a document.
func (p *program) printOne(message proto.Message, text func(style) string) error {
	if p.output == yamlOutput {
		if err := p.write([]byte("---\n")); err != nil {
			return err
		}
	}
	return p.print(message, nil, text)
}

// write sends output out at once.
func (p *program) write(output []byte) error {
	if _, err := p.stdout.Write(output); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// jsonLine writes a message as protobuf's JSON on one line, every field there.
// The same message always gives the same line; protojson alone varies the white
// space, so that nobody relies on it.
func jsonLine(message proto.Message) ([]byte, error) {
	loose, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("the server sent what JSON cannot hold: %w", err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, loose); err != nil {
		return nil, err
	}
	return escapeJSON(line.Bytes()), nil
}

// escapeJSON escapes in JSON what a terminal would act upon. All of it is in
// strings: the rest of JSON on one line is printable.
func escapeJSON(line []byte) []byte {
	if !bytes.ContainsFunc(line, isUnprintable) {
		return line
	}
	var b bytes.Buffer
	for _, r := range string(line) {
		switch {
		case !isUnprintable(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.Bytes()
}

// lockDocument returns a lock as the original library's dictionary: the user's own
// keys and the reserved ones beside them.
func lockDocument(l *pylokv1.Lock, action string) map[string]any {
	document := l.GetData().AsMap()
	document["lock_action"] = action
	document["lock_file_location"] = nil
	document["lock_file_status"] = "unlocked"
	if !isHeld(l) {
		return document
	}
	document["lock_file_status"] = "locked"
	document["lock_token"] = l.GetToken()
	if l.GetLockFileLocation() != "" {
		document["lock_file_location"] = l.GetLockFileLocation()
	}
	if l.GetHolder() != "" {
		document["lock_holder"] = l.GetHolder()
	}
	if l.GetCaller() != "" {
		document["lock_caller"] = l.GetCaller()
	}
	if l.GetAcquireTime() != nil {
		document["lock_acquired"] = l.GetAcquireTime().AsTime().Format(documentTime)
	}
	if l.GetTtl() != nil {
		document["lock_ttl"] = formatDuration(l.GetTtl().AsDuration())
	}
	if l.GetExpireTime() != nil {
		document["lock_expires"] = l.GetExpireTime().AsTime().Format(documentTime)
	}
	if l.GetOnExpiry() == pylokv1.OnExpiry_ON_EXPIRY_KEEP {
		document["lock_on_expiry"] = "keep"
	}
	if l.GetStaleTime() != nil {
		document["lock_stale"] = l.GetStaleTime().AsTime().Format(documentTime)
	}
	if l.GetTree() {
		document["lock_scope"] = "tree"
	}
	if l.GetSet() != nil {
		document["lock_set"] = setText(l.GetSet())
	}
	return document
}

// documentTime is how lock files write times: UTC, to the millisecond.
const documentTime = "2006-01-02T15:04:05.000Z07:00"

func isHeld(l *pylokv1.Lock) bool {
	return l.GetState() == pylokv1.LockState_LOCK_STATE_LOCKED
}

// isUnprintable reports whether r is a control character or the like: something
// that a terminal acts upon, or that changes how the text around it looks.
func isUnprintable(r rune) bool { return !unicode.IsPrint(r) }

// printable makes text from elsewhere safe to show on one line of a terminal:
// control characters and their like become escapes such as \x1b.
func printable(text string) string {
	return escapeUnless(text, unicode.IsPrint)
}

// printableErrors is printable for an error, or a line for each that is joined in it: the
// words of others in one make no line of their own.
func printableErrors(err error) string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return printable(err.Error())
	}
	var lines []string
	for _, err := range joined.Unwrap() {
		lines = append(lines, printableErrors(err))
	}
	return strings.Join(lines, "\n")
}

// printableLines is printable for text of several lines.
func printableLines(text string) string {
	return escapeUnless(text, func(r rune) bool { return r == '\n' || unicode.IsPrint(r) })
}

func escapeUnless(text string, safe func(rune) bool) string {
	var b strings.Builder
	for _, r := range text {
		if safe(r) {
			b.WriteRune(r)
			continue
		}
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}
