package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config sets up a Control. The zero value of each field stands for its default.
type Config struct {
	// File is the path of the access file. Default: none, everybody may do everything.
	File string
	// Poll is how often Run looks whether the file has changed. Default 10 s.
	Poll time.Duration
	// Logger is told of new policies, and of files that cannot be one. Default: nothing
	// is logged.
	Logger *slog.Logger
}

// Control holds the present Policy and reads it anew when its file changes, the whole of
// it or not at all.
type Control struct {
	config Config
	policy atomic.Pointer[Policy]

	mu      sync.Mutex // held while the file is read
	seen    fs.FileInfo
	changed chan struct{} // closed at the next change; guarded by mu
	stats   Stats         // guarded by mu
}

// Stats are facts about the access file.
type Stats struct {
	// Loaded is when the present policy was read; zero: there is no access file.
	Loaded time.Time
	// Reloads and Failures count how often the file was read after the start, and how
	// often it could not be read, so that the policy stayed.
	Reloads, Failures int
	// OK reports whether the last reading succeeded.
	OK bool
}

// NewControl reads the access file, if there is one.
func NewControl(config Config) (*Control, error) {
	if config.Poll == 0 {
		config.Poll = 10 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Control{config: config, changed: make(chan struct{}), stats: Stats{OK: true}}
	if config.File == "" {
		return c, nil
	}
	policy, seen, err := ReadPolicy(config.File)
	if err != nil {
		return nil, err
	}
	c.policy.Store(policy)
	c.seen, c.stats.Loaded = seen, time.Now()
	c.warnOfMode(seen)
	return c, nil
}

// ReadPolicy reads an access file. What it returns besides says which file that was.
func ReadPolicy(file string) (*Policy, fs.FileInfo, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("the access file: %w", err)
	}
	defer f.Close()
	seen, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("the access file: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, seen, fmt.Errorf("the access file: %w", err)
	}
	policy, err := ParsePolicy(text, file)
	return policy, seen, err
}

// warnOfMode says so if others than the owner may change the file.
func (c *Control) warnOfMode(seen fs.FileInfo) {
	if seen.Mode().Perm()&0o022 != 0 {
		c.config.Logger.Warn("others than its owner may write the access file, and so give themselves every right; take that from them with chmod go-w", "file", c.config.File, "mode", seen.Mode().Perm())
	}
}

// Policy returns the present policy; nil: there is no access file.
func (c *Control) Policy() *Policy { return c.policy.Load() }

// Changed returns a channel that is closed when Policy returns another one than now. Ask
// for it before Policy, so that no change is missed.
func (c *Control) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Stats returns facts about the access file.
func (c *Control) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Reload reads the access file again, also one that does not look changed. With an error
// the policy stays as it is.
func (c *Control) Reload() error {
	if c.config.File == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reloadLocked()
}

func (c *Control) reloadLocked() error {
	policy, seen, err := ReadPolicy(c.config.File)
	c.seen = seen
	c.stats.OK = err == nil
	if err != nil {
		c.stats.Failures++
		return err
	}
	c.stats.Reloads++
	c.stats.Loaded = time.Now()
	c.warnOfMode(seen)
	if before := c.policy.Load(); before.Digest() == policy.Digest() {
		return nil
	}
	c.policy.Store(policy)
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Run reads the access file again whenever it has changed, until ctx ends. A file that
// cannot be a policy is logged once, and the policy stays.
func (c *Control) Run(ctx context.Context) {
	if c.config.File == "" {
		return
	}
	tick := time.NewTicker(c.config.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.look()
	}
}

// look reads the file again if it is not the one that was read last.
func (c *Control) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := os.Stat(c.config.File)
	switch {
	case err != nil && c.seen == nil: // said before
		return
	case err == nil && c.seen != nil && os.SameFile(now, c.seen) && now.ModTime().Equal(c.seen.ModTime()) && now.Size() == c.seen.Size():
		return
	}
	before := c.policy.Load()
	if err := c.reloadLocked(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			c.seen = nil
		}
		c.config.Logger.Error("the access file cannot be used; the rules from before stay", "file", c.config.File, "error", err)
		return
	}
	if c.policy.Load() != before {
		c.config.Logger.Info("the access file has changed; its rules hold from now on", "file", c.config.File)
	}
}
