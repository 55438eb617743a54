package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// contexts is what the config file has.
type contexts struct {
	path      string // of the file; empty: there can be none
	document  yaml.Node
	byDefault string                       // the name of the context that counts unless told otherwise; empty: none
	contexts  map[string]map[string]string // by name, and then by key
}

// configPath returns where the config file is; empty: nowhere.
func configPath() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pylok", "config.yaml")
	}
	if home := os.Getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "pylok", "config.yaml")
	}
	return ""
}

// readContexts reads the config file. One that is not there has no contexts.
func readContexts() (*contexts, error) {
	c := &contexts{path: configPath()}
	if c.path == "" {
		return c, nil
	}
	text, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = c.parse(text)
	}
	if err != nil {
		return nil, usagef("the config file: %v", err)
	}
	return c, nil
}

// missing says of a name that there is no such context.
func (c *contexts) missing(name string) string {
	if len(c.contexts) == 0 {
		return fmt.Sprintf("there is no context %q, and no other in %s", name, cmp.Or(c.path, "a config file"))
	}
	return fmt.Sprintf("there is no context %q in %s", name, c.path)
}

// parse reads the text of the file, with all that is wrong in it named by its line.
func (c *contexts) parse(text []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	err := decoder.Decode(&c.document)
	if errors.Is(err, io.EOF) {
		return nil // it is empty
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has more than one document", c.path)
	}
	c.contexts = map[string]map[string]string{}
	root := c.document.Content[0]
	if isNull(root) {
		return nil
	}
	var byDefault *yaml.Node
	err = c.each(root, "the file", func(key string, value *yaml.Node) error {
		switch key {
		case "default":
			byDefault = value
			return c.text(value, &c.byDefault)
		case "contexts":
			return c.each(value, "contexts", c.parseContext)
		}
		return c.problem(value, "%q is no key here; there are default and contexts", key)
	})
	if err != nil {
		return err
	}
	if _, ok := c.contexts[c.byDefault]; byDefault != nil && !ok {
		return c.problem(byDefault, "default is %q, and contexts has none of that name", c.byDefault)
	}
	return nil
}

func (c *contexts) parseContext(name string, node *yaml.Node) error {
	context := map[string]string{}
	c.contexts[name] = context
	if name == "" {
		return c.problem(node, "a context needs a name")
	}
	return c.each(node, "the context "+name, func(key string, value *yaml.Node) error {
		i := slices.IndexFunc(allSettings, func(s setting) bool { return s.key == key })
		if i < 0 {
			var keys []string
			for _, s := range allSettings {
				keys = append(keys, s.key)
			}
			return c.problem(value, "%q is no key of a context; there are %s", key, strings.Join(keys, ", "))
		}
		var text string
		if err := c.text(value, &text); err != nil {
			return err
		}
		if allSettings[i].isPath && text != "" {
			text = c.absolute(text)
		}
		if allSettings[i].isSwitch && value.ShortTag() != "!!bool" {
			return c.problem(value, "%s can be true or false", key)
		}
		context[key] = text
		return nil
	})
}

// each calls f with the keys and values of a mapping.
func (c *contexts) each(node *yaml.Node, what string, f func(key string, value *yaml.Node) error) error {
	if isNull(node) {
		return nil // as one that has nothing yet
	}
	if node.Kind != yaml.MappingNode {
		return c.problem(node, "%s must be a mapping of keys and values", what)
	}
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode || seen[key.Value] {
			return c.problem(key, "%q is there twice, or is no key", key.Value)
		}
		seen[key.Value] = true
		if err := f(key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *contexts) text(node *yaml.Node, text *string) error {
	if node.Kind != yaml.ScalarNode || isNull(node) {
		return c.problem(node, "the value must be one text")
	}
	*text = node.Value
	return nil
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }

func (c *contexts) problem(node *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s, line %d: %s", c.path, node.Line, fmt.Sprintf(format, args...))
}

// absolute returns a path of the file: ~ is the home directory, and what is relative is so
// to the directory of the file.
func (c *contexts) absolute(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		return filepath.Join(os.Getenv("HOME"), path[1:])
	}
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(c.path), path)
}

// setDefault has the file name another default, and leaves all else in it as it is.
func (c *contexts) setDefault(name string) error {
	root := c.document.Content[0]
	value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
	i := slices.IndexFunc(root.Content, func(n *yaml.Node) bool { return n.Value == "default" })
	if i >= 0 && i%2 == 0 {
		value.LineComment = root.Content[i+1].LineComment
		root.Content[i+1] = value
	} else {
		root.Content = append([]*yaml.Node{{Kind: yaml.ScalarNode, Value: "default"}, value}, root.Content...)
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(&c.document); err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(c.path) // such as into a repository of dotfiles
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(path), ".config-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // unless it has been moved into place
	_, err = next.Write(text.Bytes())
	if err := errors.Join(err, next.Chmod(info.Mode().Perm()), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}

func (p *program) contextCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "context [NAME]",
		Short: "List the servers of the config file, or choose the default one",
		Long: `List the contexts of the config file, or make NAME the one that counts unless told
otherwise. The file is $XDG_CONFIG_HOME/pylok/config.yaml, else
~/.config/pylok/config.yaml:

  default: prod
  contexts:
    prod:
      address: locks.example.com:5625
      ca: ca.pem                  # relative to this file
      token_file: ~/.pylok-token
    laptop:
      address: unix:///run/user/1000/pylok/pylok.sock

Its keys are address, tls, ca, cert, key, tls_min_version, token_file, ci_token,
audience, insecure and holder: the flags of these names, and the variables PYLOK_...
A flag counts first, then the context that --context names, then a variable, then the
context that PYLOK_CONTEXT names or the default one. With --address a context counts
only when --context names it, and with PYLOK_ADDRESS the default one does not, nor one
that PYLOK_CONTEXT names with another address, so that no credential goes to a server
that it is not for.`,
		Example: `  pylok context
  pylok context prod
  pylok --context prod list`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("give one name; %q is one too many", args[1])
			}
			return nil
		},
		ValidArgsFunction: completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			p.started = true
			file, err := readContexts()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if _, ok := file.contexts[args[0]]; !ok {
					return usagef("%s; pylok context lists them", file.missing(args[0]))
				}
				return file.setDefault(args[0])
			}
			return p.listContexts(file)
		},
	}
}

func (p *program) listContexts(file *contexts) error {
	names := slices.Sorted(maps.Keys(file.contexts))
	switch p.output {
	case jsonOutput, yamlOutput:
		all := map[string]any{}
		for _, name := range names {
			context := map[string]any{}
			for key, value := range file.contexts[name] {
				context[key] = value
			}
			all[name] = context
		}
		document := map[string]any{"default": file.byDefault, "contexts": all}
		if p.output == yamlOutput {
			return p.write(toYAML(document))
		}
		line, err := json.Marshal(document)
		if err != nil {
			return err
		}
		return p.write(append(escapeJSON(line), '\n'))
	}
	if len(names) == 0 {
		p.say("there is no context in %s; pylok help context shows one", cmp.Or(file.path, "a config file: neither HOME nor XDG_CONFIG_HOME is set"))
		return nil
	}
	width := 0
	for _, name := range names {
		width = max(width, len(name))
	}
	var b strings.Builder
	for _, name := range names {
		mark := " "
		if name == file.byDefault {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-*s  %s\n", mark, width, printable(name), printable(cmp.Or(file.contexts[name]["address"], "(no address)")))
	}
	return p.write([]byte(b.String()))
}

func completeContext(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	file, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Sorted(maps.Keys(file.contexts)), cobra.ShellCompDirectiveNoFileComp
}
