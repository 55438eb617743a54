package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/internal/load"
)

// pylokHolder is the holder of all locks.
const pylokHolder = "alice@ci-7"

// startPylok starts the daemon with its defaults.
func startPylok(ctx context.Context, s *settings, dir string) (*contender, error) {
	server, address, err := startPylokd(ctx, s, filepath.Join(dir, "root"), filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	target, err := load.NewPylok(pylokHolder, func() (*client.Client, error) {
		return client.Dial(address, client.Options{})
	})
	if err != nil {
		return nil, err
	}
	return &contender{
		server: server,
		target: target,
		about:  "pylokd with its defaults; a hold has a ttl and data, its file is about 400 bytes long; all callers share one connection",
	}, nil
}

// stateOf is the state directory of a root's daemon.
func stateOf(root string) string { return root + ".state" }

// removeRoot removes a root and what its daemon keeps beside it.
func removeRoot(root string) error {
	return errors.Join(os.RemoveAll(root), os.RemoveAll(stateOf(root)))
}

// startPylokd starts the daemon on a root and returns its address.
func startPylokd(ctx context.Context, s *settings, root, log string) (*process, string, error) {
	var address string
	server, err := startProcess(ctx, log, func(line string) bool {
		_, after, served := strings.Cut(line, " on ")
		for next := after; served; { // the root's path may have an " on " too
			if _, next, served = strings.Cut(next, " on "); served {
				after = next
			}
		}
		address = after
		return after != ""
	}, nil, s.pylokd, append([]string{"--root", root, "--state-dir", stateOf(root), "--listen", "127.0.0.1:0", "--socket", "none", "--log-level", "warn"}, s.pylokdArgs...)...)
	return server, address, err
}
