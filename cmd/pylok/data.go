package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pylok/pylok/internal/document"
	"github.com/pylok/pylok/internal/document/wiredoc"
	"github.com/pylok/pylok/internal/document/yamldoc"
	"github.com/pylok/pylok/lock"
)

// maxDataFileBytes is the most that is read of a --data-file. A lock file holds 64
// KiB; the rest is room for comments and white space.
const maxDataFileBytes = 1 << 20

// dataHelp is the part of a command's --help that says how data are read.
const dataHelp = `--data KEY=VALUE: VALUE is text, unless it is true, false, null, a number, a list
[...] or a mapping {...} as JSON writes them; '"12"' in quotes is the text 12, and
text that begins with [ or { needs quotes.
KEY is taken as it is: a dot in it does not nest.
--data-file reads a YAML or JSON mapping, but for the server's own keys, such as
lock_holder, which pylok status -o yaml prints; --data and --msg replace keys of it.
In both, dates stay the text that was written, and so does every number that would not
come back as it was written: 1.10, 1e3, 007, whole numbers beyond 2^53.`

// dataFlags are the flags that make up data.
type dataFlags struct {
	pairs []string
	file  string
	msg   string
	cmd   *cobra.Command
}

// addDataFlags gives cmd the flags for what is to be done with data.
func addDataFlags(cmd *cobra.Command, what string) *dataFlags {
	f := &dataFlags{cmd: cmd}
	cmd.Flags().StringArrayVar(&f.pairs, "data", nil, "set `KEY=VALUE` in "+what+"; may be given many times")
	cmd.Flags().StringVar(&f.file, "data-file", "", "take "+what+" from a YAML or JSON `FILE`; - is the standard input")
	cmd.Flags().StringVar(&f.msg, "msg", "", "say why, as `TEXT` for people; sets the key msg in "+what)
	must(cmd.RegisterFlagCompletionFunc("data", cobra.NoFileCompletions))
	must(cmd.RegisterFlagCompletionFunc("msg", cobra.NoFileCompletions))
	return f
}

// read returns the data that the flags make up, or nil when none was given.
func (f *dataFlags) read(ctx context.Context, stdin io.Reader) (*structpb.Struct, error) {
	given := f.cmd.Flags().Changed
	if !given("data") && !given("data-file") && !given("msg") {
		return nil, nil
	}
	data := map[string]any{}
	if given("data-file") {
		var err error
		if data, err = f.readFile(ctx, stdin); err != nil {
			return nil, err
		}
	}
	pairs, err := parsePairs(f.pairs)
	if err != nil {
		return nil, err
	}
	for key, value := range pairs {
		data[key] = value
	}
	if given("msg") {
		if _, twice := pairs["msg"]; twice {
			return nil, usagef("--msg and --data msg=... set the same key; give one of them")
		}
		data["msg"] = f.msg
	}
	checked, err := lock.NewData(data)
	if err != nil {
		return nil, err
	}
	return wiredoc.ToStruct(checked.Map()), nil
}

// readFile reads the file, unless the person has enough of waiting for who writes it.
func (f *dataFlags) readFile(ctx context.Context, stdin io.Reader) (map[string]any, error) {
	type result struct {
		data map[string]any
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := readDataFile(f.file, stdin)
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, usagef("--data-file: %v", r.err)
		}
		return r.data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// parsePairs reads the values of --data.
func parsePairs(pairs []string) (map[string]any, error) {
	data := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("--data %s is not KEY=VALUE, such as --data backend=App1", pair)
		}
		if _, twice := data[key]; twice {
			return nil, usagef("--data sets the key %q twice", key)
		}
		if slices.Contains(lock.ReservedKeys, key) {
			return nil, usagef("--data %s: this key is the server's own; leave it out", key)
		}
		parsed, err := parseValue(value)
		if err != nil {
			return nil, usagef("--data %s: %v", key, err)
		}
		data[key] = parsed
	}
	return data, nil
}

// parseValue reads the VALUE of --data KEY=VALUE: what it means as JSON, else the
// text. What begins as a list or a mapping is meant to be one.
func parseValue(text string) (any, error) {
	var ignored json.RawMessage
	err := json.Unmarshal([]byte(text), &ignored)
	switch {
	case err == nil:
		return document.ReadJSON([]byte(text))
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["):
		quoted, quoteErr := json.Marshal(text)
		if quoteErr != nil {
			return nil, quoteErr
		}
		return nil, fmt.Errorf("%s looks like JSON and is not: %w; to give it as text, write it in quotes as JSON does: %s", text, err, quoted)
	}
	return text, nil
}

// readDataFile reads a mapping from a YAML or JSON file.
func readDataFile(path string, stdin io.Reader) (map[string]any, error) {
	source := stdin
	if path == "-" {
		path = "the standard input"
	} else {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		source = file
	}
	text, err := io.ReadAll(io.LimitReader(source, maxDataFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDataFileBytes {
		return nil, fmt.Errorf("%s is larger than 1 MiB; a lock file holds 64 KiB", path)
	}
	data, err := yamldoc.ReadDocument(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}
