package access

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
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
	jwts   jwts
	heard  heard

	reading sync.Mutex        // held while the file is read
	seen    fs.FileInfo       // the file that was read last; nil: it could not be opened
	read    [sha256.Size]byte // SHA-256 of its text
	settled bool              // it was read so long after its last change that it shows the next one

	mu      sync.Mutex      // held for moments
	changed context.Context // ends at the next change
	change  context.CancelFunc
	stats   Stats
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
	c := &Control{config: config, stats: Stats{OK: true}}
	c.changed, c.change = context.WithCancel(context.Background())
	if config.File == "" {
		return c, nil
	}
	if _, err := c.load(); err != nil {
		return nil, err
	}
	c.stats.Reloads = 0
	return c, nil
}

// HasFile reports whether there is an access file.
func (c *Control) HasFile() bool { return c.config.File != "" }

// ReadPolicy reads an access file, and returns what the file then was. What is wrong with
// its text is said as ParsePolicy says it.
func ReadPolicy(file string) (*Policy, fs.FileInfo, error) {
	text, seen, err := readFile(file)
	if err != nil {
		return nil, seen, err
	}
	policy, err := ParsePolicy(text, file)
	return policy, seen, err
}

// readFile reads an access file, or so much of it that it is seen to be too long.
func readFile(file string) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0) // lest a pipe hang
	if err != nil {
		return nil, nil, fmt.Errorf("the access file: %w", err)
	}
	defer f.Close()
	seen, err := f.Stat()
	if err == nil && !seen.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", file)
	}
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	}
	if err != nil {
		return nil, seen, fmt.Errorf("the access file: %w", err)
	}
	return text, seen, nil
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
func (c *Control) Changed() <-chan struct{} { return c.untilChange().Done() }

// untilChange returns a context that ends when Changed is closed.
func (c *Control) untilChange() context.Context {
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
// the policy stays as it is, the whole of it.
func (c *Control) Reload() error {
	if !c.HasFile() {
		return nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	_, err := c.load()
	return err
}

// load reads the file and makes its policy the present one. It reports whether the text is
// another one than that which was read last. The caller must hold reading.
func (c *Control) load() (another bool, err error) {
	text, seen, err := readFile(c.config.File)
	began := time.Now()
	another = (seen == nil) != (c.seen == nil)
	c.seen = seen
	if seen != nil {
		c.settled = began.Sub(seen.ModTime()) > clockGrain
	}
	var policy *Policy
	if err == nil {
		sum := sha256.Sum256(text)
		another = another || sum != c.read
		c.read = sum
		policy, err = ParsePolicy(text, c.config.File)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.OK = err == nil
	if err != nil {
		c.stats.Failures++
		return another, err
	}
	c.stats.Reloads++
	c.stats.Loaded = time.Now()
	if another {
		c.warnOfMode(seen)
	}
	if before := c.policy.Load(); before == nil || before.Digest() != policy.Digest() {
		c.policy.Store(policy)
		c.change()
		c.changed, c.change = context.WithCancel(context.Background())
	}
	return another, nil
}

// ReloadFor is Reload that says in the log what has become of it; cause is why.
func (c *Control) ReloadFor(cause string) {
	before := c.Policy()
	if err := c.Reload(); err != nil {
		c.sayBad(cause, err)
	} else {
		c.sayGood(cause, before)
	}
}

func (c *Control) sayBad(cause string, err error) {
	c.config.Logger.Error(cause+": the access file cannot be used; the rules from before stay", "file", c.config.File, "error", err)
}

func (c *Control) sayGood(cause string, before *Policy) {
	if now := c.Policy(); now.Digest() != before.Digest() {
		c.config.Logger.Info(cause+": the access file was read again; its rules hold from now on", "file", c.config.File, "callers", len(now.entries), "rules", len(now.rules))
		return
	}
	c.config.Logger.Info(cause+": the access file was read again; it says what it said", "file", c.config.File)
}

// Run reads the access file again whenever it has changed, until ctx ends. What cannot be a
// policy is logged once for each text.
func (c *Control) Run(ctx context.Context) {
	if !c.HasFile() {
		return
	}
	tick := time.NewTicker(c.config.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.look()
		}
	}
}

// clockGrain is more than the clock of any file system is coarse: a file whose last change
// is older when it is read shows a further change by another time.
const clockGrain = 3 * time.Second

// look reads the file again if it is not the one that was read last.
func (c *Control) look() {
	c.reading.Lock()
	defer c.reading.Unlock()
	now, err := os.Stat(c.config.File)
	switch {
	case err != nil && c.seen == nil: // said before
		return
	case err == nil && c.seen != nil && c.settled && os.SameFile(now, c.seen) && now.ModTime().Equal(c.seen.ModTime()) && now.Size() == c.seen.Size():
		return
	}
	const cause = "the access file has changed"
	before := c.Policy()
	switch another, err := c.load(); {
	case !another: // said before
	case err != nil:
		c.sayBad(cause, err)
	default:
		c.sayGood(cause, before)
	}
}
