package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// config is what pylokd can be told. Each field is the flag of its name, and
// PYLOKD_ with that name in capitals in the environment; the flag wins.
type config struct {
	// root is the directory of the lock files. It is made if it is missing,
	// and has at most one pylokd.
	root string
	// stateDir is a directory outside the root, where the server writes down how far
	// each root has come, so that it tells an older copy of one; empty: none is known.
	stateDir string
	// stateDirIsDefault says that nobody asked for it.
	stateDirIsDefault bool
	// acceptRestore serves a root that is an older copy, or whose journal is not
	// complete, with tokens far above all that are known.
	acceptRestore bool
	// check has pylokd look at the root instead of serving it: it prints a line
	// for every damage and every lock whose file and history disagree, and
	// changes nothing.
	check bool
	// listen is the address to serve on, HOST:PORT; port 0 takes a free one. None: the
	// socket alone is served.
	listen string
	// socket is the path of a Unix socket to serve on too; empty or none: there is none.
	socket string
	// socketIsDefault says that nobody asked for it.
	socketIsDefault bool
	// socketMode says who may connect to it.
	socketMode socketMode
	// insecure lets listen be an address beyond loopback without TLS: who
	// reaches it can read, take and break locks, and see others do so.
	insecure bool
	// rootMustExist: a root that is missing or that no server has served is refused.
	rootMustExist bool
	// tlsCert and tlsKey are PEM files: the server's certificate, followed by
	// those that vouch for it, and its key. Given both, the server speaks TLS
	// only. They are read at the start, on SIGHUP and when they have changed.
	tlsCert, tlsKey string
	// tlsClientCA is a PEM file of those who vouch for clients, read likewise. A client's
	// certificate that none of them signed is refused; empty: none is asked for.
	tlsClientCA string
	// tlsClientCert is request, so that clients may come without a certificate, or
	// require.
	tlsClientCert string
	// tlsMinVersion is the oldest TLS that is spoken, 1.2 or 1.3.
	tlsMinVersion string
	// access is the file that says who callers are and what they may do. It is read at
	// the start, on SIGHUP and when it has changed; empty: who gets in may do everything.
	access string
	// auditFile is appended to: a JSON object a line for what was refused, and for holds
	// that were broken. It is opened anew on SIGHUP; empty: there is none.
	auditFile string
	// checkAccess is an access file to print the meaning or the errors of, instead of
	// serving.
	checkAccess string

	// maxLocks is how many locks may be held at a time.
	maxLocks int
	// maxWaiters and maxWaitersTotal are how many requests may wait for one lock, and for
	// all together; one that is sent again while it waits counts again. What they wait
	// with may be 128 MiB in all.
	maxWaiters, maxWaitersTotal int
	// maxWait is the longest wait that a request may ask for, at most 24 h.
	maxWait time.Duration
	// The limits of one caller, and of all where it says so; 0: none. A caller is who
	// proves a name, and else an address.
	maxRequestsPerSecond                   float64 // from other machines
	maxCallsPerCaller, maxWaitsPerCaller   int     // the waits with 32 MiB of data
	maxWatches, maxWatchesPerCaller        int     // in all, and of one caller
	maxScansPerCaller, maxHoldsPerCaller   int
	maxConnections, maxConnectionsPerPlace int // 0: see connectionLimits
	maxStreams                             int // of one connection
	// idleTimeout is how long a connection stays open without a call.
	idleTimeout time.Duration

	// pollInterval is how often the root is looked through for changes that
	// others made and inotify did not tell, such as those on NFS.
	pollInterval time.Duration
	// history is how much of the past is kept for History and Watch, give or take
	// a quarter while many changes are made. Who broke which hold, and why, History
	// tells four times as long, out of a sixteenth of the bytes beside it.
	history retention

	// logFormat is text or json; the log goes to stderr.
	logFormat string
	// logLevel is the least level that is logged: debug has a line for every
	// call, info for refused calls and for changes that nobody asked for, warn
	// for limits and a failing store, error for faults.
	logLevel slog.Level
	// pprof is a loopback address for profiles of the running server, HOST:PORT
	// as listen; empty: none.
	pprof string
}

// asked are the flags that ask for something else than serving. They are no settings: an
// image may have a PYLOKD_VERSION of its own in the environment.
var asked = []string{"help", "version", "check", "check-access"}

// none, as a value of --listen or --socket, is no such place.
const none = "none"

// errDone: the command line asked for a text and has it.
var errDone = errors.New("nothing to serve")

// parse reads the command line and the environment. With errDone, text is what to
// print.
func parse(args []string, environment func(string) string) (c config, text string, err error) {
	c = config{
		root:            defaultRoot(environment, os.Geteuid()),
		stateDir:        defaultStateDir(environment, os.Geteuid()),
		listen:          "127.0.0.1:5625",
		socket:          defaultSocket(environment, os.Geteuid()),
		socketMode:      0o666,
		maxLocks:        2_000_000,
		maxWaiters:      16_384,
		maxWaitersTotal: 65_536,
		maxWait:         24 * time.Hour,
		pollInterval:    time.Second,

		maxRequestsPerSecond: 20_000,
		maxCallsPerCaller:    32_768,
		maxWaitsPerCaller:    16_384,
		maxWatches:           32_768,
		maxWatchesPerCaller:  8_192,
		maxScansPerCaller:    4,
		maxHoldsPerCaller:    1_000_000,
		maxStreams:           32_768,
		idleTimeout:          15 * time.Minute,

		history:       retention{age: 90 * day, bytes: 1 << 30},
		tlsClientCert: "request",
		tlsMinVersion: "1.3",
		logFormat:     "text",
		logLevel:      slog.LevelInfo,
	}
	flags := pflag.NewFlagSet("pylokd", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	flags.StringVar(&c.root, "root", c.root, "`DIR` of the lock files; made if it is missing")
	flags.StringVar(&c.stateDir, "state-dir", c.stateDir, "write down in `DIR`, outside the root, how far the root has come, to tell an older copy of it")
	flags.BoolVar(&c.acceptRestore, "accept-restore", false, "for one start: serve a root that was restored from an older copy, or whose journal is not complete, as it is, with tokens far above those from before")
	flags.BoolVar(&c.rootMustExist, "root-must-exist", false, "do not make the root: refuse one that is missing or that was never served, for a volume that may not be mounted")
	flags.BoolVar(&c.check, "check", false, "do not serve: print what is damaged or disagrees in the root and what a start would do about it, change nothing, exit 0 if there is nothing and 1 if there is")
	flags.StringVar(&c.listen, "listen", c.listen, "serve on `HOST:PORT`; port 0 takes a free one; none: on the socket alone")
	flags.StringVar(&c.socket, "socket", c.socket, "serve on the Unix socket `PATH` too, where the kernel says who calls; none: on no socket. The default is where pylok looks, $XDG_RUNTIME_DIR/pylok/pylok.sock, and for root /run/pylok/pylok.sock")
	flags.Var(&c.socketMode, "socket-mode", "who may connect to the socket, as a file's `MODE`; everybody of this machine by default")
	flags.StringVar(&c.tlsCert, "tls-cert", "", "speak TLS only, with the certificate in the PEM `FILE`")
	flags.StringVar(&c.tlsKey, "tls-key", "", "PEM `FILE` of its key")
	flags.StringVar(&c.tlsClientCA, "tls-client-ca", "", "take certificates of clients that an authority in the PEM `FILE` vouches for, as a proof of who asks; others are refused")
	flags.StringVar(&c.tlsClientCert, "tls-client-cert", c.tlsClientCert, "with --tls-client-ca: `request` a certificate, or require one")
	flags.StringVar(&c.tlsMinVersion, "tls-min-version", c.tlsMinVersion, "speak no TLS older than `VERSION`, 1.3 or 1.2")
	flags.BoolVar(&c.insecure, "insecure", false, "serve beyond loopback without TLS: who reaches the address can read, take and break locks")
	flags.StringVar(&c.access, "access", "", "the YAML `FILE` says who callers are and what they may do; without it who gets in may do everything")
	flags.StringVar(&c.auditFile, "audit-file", "", "append to `FILE` a line of JSON for each request that is refused for who asks, and for each hold that is broken; SIGHUP opens it anew")
	flags.StringVar(&c.checkAccess, "check-access", "", "do not serve: print what the access `FILE` says, or what is wrong in it, exit 0 if it is good and 1 if it is not")
	flags.IntVar(&c.maxLocks, "max-locks", c.maxLocks, "at most `N` locks are held at a time")
	flags.IntVar(&c.maxWaiters, "max-waiters", c.maxWaiters, "at most `N` requests wait for one lock")
	flags.IntVar(&c.maxWaitersTotal, "max-waiters-total", c.maxWaitersTotal, "at most `N` requests wait for all locks together, with 128 MiB of data")
	flags.DurationVar(&c.maxWait, "max-wait", c.maxWait, "a request may ask to wait for `TIME`, 24h at most")
	flags.Float64Var(&c.maxRequestsPerSecond, "max-requests-per-second", c.maxRequestsPerSecond, "a caller from another machine makes at most `N` requests a second; for renewals and releases of what it holds another N. A caller is who proves a name, and else an address; 0, here and below: no limit")
	flags.IntVar(&c.maxCallsPerCaller, "max-calls-per-caller", c.maxCallsPerCaller, "a caller has at most `N` calls open")
	flags.IntVar(&c.maxWaitsPerCaller, "max-waits-per-caller", c.maxWaitsPerCaller, "at most `N` requests of a caller wait for locks, with 32 MiB of data")
	flags.IntVar(&c.maxWatches, "max-watches", c.maxWatches, "at most `N` watches are open in all")
	flags.IntVar(&c.maxWatchesPerCaller, "max-watches-per-caller", c.maxWatchesPerCaller, "a caller has at most `N` watches open")
	flags.IntVar(&c.maxScansPerCaller, "max-scans-per-caller", c.maxScansPerCaller, "at most `N` calls of List and History of a caller work at a time; others wait for them")
	flags.IntVar(&c.maxHoldsPerCaller, "max-holds-per-caller", c.maxHoldsPerCaller, "a caller holds at most `N` locks")
	flags.IntVar(&c.maxConnections, "max-connections", 0, "at most `N` connections are open; 0, and at most: as many as leave the store the descriptors that it needs")
	flags.IntVar(&c.maxConnectionsPerPlace, "max-connections-per-address", 0, "at most `N` of them are from one address, or one user of the Unix socket; 0: half of all, 4096 at most")
	flags.IntVar(&c.maxStreams, "max-streams", c.maxStreams, "at most `N` calls are open on one connection; a client keeps others back")
	flags.DurationVar(&c.idleTimeout, "idle-timeout", c.idleTimeout, "close a connection after `TIME` without a call; clients connect again by themselves")
	flags.DurationVar(&c.pollInterval, "poll-interval", c.pollInterval, "look at all lock files every `TIME`, or as often as a fortieth of a CPU allows, for changes that inotify does not tell, such as those on NFS")
	flags.Var(&c.history, "history", "keep the history of `AGE,SIZE`, whichever ends first; one of the two alone leaves the other as it is")
	flags.StringVar(&c.logFormat, "log-format", c.logFormat, "log to stderr as `FORMAT`, text or json")
	flags.TextVar(&c.logLevel, "log-level", c.logLevel, "log from `LEVEL` up: debug (every call), info, warn, error")
	flags.Lookup("log-level").DefValue = "info"
	flags.StringVar(&c.pprof, "pprof", "", "serve profiles of the daemon on the loopback address `HOST:PORT`")
	showVersion := flags.Bool("version", false, "print the version and exit")
	showHelp := flags.BoolP("help", "h", false, "print this and exit")

	if err := flags.Parse(args); err != nil {
		return c, "", usageError{err}
	}
	if *showHelp {
		return c, fmt.Sprintf(helpText, flags.FlagUsagesWrapped(80)), errDone
	}
	if *showVersion {
		return c, fmt.Sprintf("pylokd %s\n", version()), errDone
	}
	if flags.NArg() > 0 {
		return c, "", usageError{fmt.Errorf("%q is not a flag, and pylokd takes nothing else", flags.Arg(0))}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		variable := "PYLOKD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := environment(variable)
		if f.Changed || value == "" || err != nil || slices.Contains(asked, f.Name) {
			return
		}
		if bad := f.Value.Set(value); bad != nil {
			kind, _ := pflag.UnquoteUsage(f)
			err = usageError{fmt.Errorf("the environment's %s is %q, which --%s does not take (%s): %w", variable, value, f.Name, cmp.Or(kind, "true or false"), bad)}
		}
	})
	if err != nil {
		return c, "", err
	}
	c.socketIsDefault = !flags.Changed("socket") && environment("PYLOKD_SOCKET") == ""
	c.stateDirIsDefault = !flags.Changed("state-dir") && environment("PYLOKD_STATE_DIR") == ""
	if c.checkAccess == "" && flags.Changed("check-access") {
		return c, "", usageError{errors.New("--check-access is empty; give the access file to look at")}
	}
	if c.checkAccess != "" {
		return c, "", nil // nothing else counts
	}
	if c.root == "" && flags.Changed("root") {
		return c, "", usageError{errors.New("--root is empty; give the directory of the lock files")}
	}
	if err := cmp.Or(c.validate(), checkZone(environment("TZ"))); err != nil {
		return c, "", usageError{err}
	}
	return c, "", nil
}

const helpText = `pylokd serves locks to programs on this machine: a held lock is one YAML file in
a directory, and gRPC makes those files safe. Without flags the directory is
$XDG_STATE_HOME/pylok/locks; where that is not set, ~/.local/state/pylok/locks;
and for root without a home, /var/lib/pylok/locks. Once it serves, it prints
one line that says which directory and which address.

SIGTERM and SIGINT stop it within 10 s, a second one at once. Holds stay held.
SIGHUP has it read the certificates and the access file again, which it does by
itself within 10 s when they have changed; a file that is wrong changes nothing.
A log that nobody reads holds nothing up: lines are dropped, and counted in the
log.

Usage: pylokd [FLAG]...

%s
Every flag but --check, --check-access, --help and --version can also be set in
the environment: PYLOKD_LISTEN is --listen, PYLOKD_LOG_LEVEL is --log-level. The
flag wins.

Exit codes: 0 stopped, 1 failed, 2 wrong command line. With --check and
--check-access: 0 all is well, 1 it is not.
`

// tlsVersions are those that can be spoken.
var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// validate finds values that cannot be meant.
func (c *config) validate() error {
	switch {
	case c.listen == none && (c.socket == "" || c.socket == none):
		return errors.New("--listen is none, and so is --socket: nobody could call")
	case c.root == "":
		return errors.New("neither HOME nor XDG_STATE_HOME is set, so say with --root which directory to serve")
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case c.tlsClientCA != "" && c.tlsCert == "":
		return errors.New("--tls-client-ca needs TLS: give --tls-cert and --tls-key")
	case c.tlsClientCert != "request" && c.tlsClientCert != "require":
		return fmt.Errorf("--tls-client-cert is %q; give request or require", c.tlsClientCert)
	case c.tlsClientCert == "require" && c.tlsClientCA == "":
		return errors.New("--tls-client-cert=require needs --tls-client-ca, by which the certificates are verified")
	case tlsVersions[c.tlsMinVersion] == 0:
		return fmt.Errorf("--tls-min-version is %q; give 1.3 or 1.2", c.tlsMinVersion)
	case c.maxLocks < 1:
		return fmt.Errorf("--max-locks is %d; give 1 or more", c.maxLocks)
	case c.maxWaiters < 1:
		return fmt.Errorf("--max-waiters is %d; give 1 or more", c.maxWaiters)
	case c.maxWaitersTotal < 1:
		return fmt.Errorf("--max-waiters-total is %d; give 1 or more", c.maxWaitersTotal)
	case c.maxWait <= 0 || c.maxWait > 24*time.Hour:
		return fmt.Errorf("--max-wait is %v; give more than 0 and at most 24h", c.maxWait)
	case !(c.maxRequestsPerSecond >= 0): // NaN too
		return fmt.Errorf("--max-requests-per-second is %g; give 0 (no limit) or more", c.maxRequestsPerSecond)
	case c.maxStreams < 1 || c.maxStreams > math.MaxInt32:
		return fmt.Errorf("--max-streams is %d; give 1 to %d", c.maxStreams, math.MaxInt32)
	case c.idleTimeout < time.Second:
		return fmt.Errorf("--idle-timeout is %v; give 1s or more", c.idleTimeout)
	case c.pollInterval < 10*time.Millisecond:
		return fmt.Errorf("--poll-interval is %v; give 10ms or more", c.pollInterval)
	case c.logFormat != "text" && c.logFormat != "json":
		return fmt.Errorf("--log-format is %q; give text or json", c.logFormat)
	}
	for _, limit := range []struct {
		flag  string
		value int
	}{
		{"max-calls-per-caller", c.maxCallsPerCaller},
		{"max-waits-per-caller", c.maxWaitsPerCaller},
		{"max-watches", c.maxWatches},
		{"max-watches-per-caller", c.maxWatchesPerCaller},
		{"max-scans-per-caller", c.maxScansPerCaller},
		{"max-holds-per-caller", c.maxHoldsPerCaller},
		{"max-connections", c.maxConnections},
		{"max-connections-per-address", c.maxConnectionsPerPlace},
	} {
		if limit.value < 0 {
			return fmt.Errorf("--%s is %d; give 0 (no limit of its own) or more", limit.flag, limit.value)
		}
	}
	return nil
}

// checkZone finds a TZ that Go takes for UTC without a word: the times in lock files that
// name no zone would be off by hours.
func checkZone(tz string) error {
	name := strings.TrimPrefix(tz, ":")
	var err error
	if filepath.IsAbs(name) {
		var data []byte
		if data, err = os.ReadFile(name); err == nil {
			_, err = time.LoadLocationFromTZData(name, data)
		}
	} else {
		_, err = time.LoadLocation(name)
	}
	if err != nil {
		return fmt.Errorf("TZ is %q in the environment, and there is no such time zone here (%w); give one such as Europe/Berlin, or unset it", tz, err)
	}
	return nil
}

// defaultRoot follows the XDG base directory specification, by which a path that is
// not absolute does not count. Daemons that start with the machine have no home.
func defaultRoot(environment func(string) string, uid int) string {
	if state := defaultStateDir(environment, uid); state != "" {
		return filepath.Join(state, "locks")
	}
	return ""
}

// defaultStateDir is the directory that defaultRoot is in; empty: there is none.
func defaultStateDir(environment func(string) string, uid int) string {
	if state := environment("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "pylok")
	}
	home := environment("HOME")
	switch {
	case filepath.IsAbs(home) && filepath.Clean(home) != "/":
		return filepath.Join(home, ".local", "state", "pylok")
	case uid == 0:
		return "/var/lib/pylok"
	}
	return ""
}

const day = 24 * time.Hour

// retention is how much of the history is kept: events up to an age, as far as they
// fit in a number of bytes. It is a pflag.Value such as 90d,1GiB.
type retention struct {
	age   time.Duration
	bytes int64
}

var byteUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// String implements pflag.Value.
func (r *retention) String() string {
	age := r.age.String()
	if r.age%day == 0 {
		age = fmt.Sprintf("%dd", r.age/day)
	}
	size := fmt.Sprintf("%dB", r.bytes)
	for _, unit := range byteUnits {
		if r.bytes > 0 && r.bytes%unit.bytes == 0 {
			size = fmt.Sprintf("%d%s", r.bytes/unit.bytes, unit.suffix)
		}
	}
	return age + "," + size
}

// Type implements pflag.Value.
func (r *retention) Type() string { return "AGE,SIZE" }

// Set implements pflag.Value.
func (r *retention) Set(text string) error {
	next := *r
	var ages, sizes int
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if age, ok := parseAge(part); ok {
			next.age = age
			ages++
		} else if size, ok := parseBytes(part); ok {
			next.bytes = size
			sizes++
		} else {
			return fmt.Errorf("%q is neither an age such as 90d or 36h nor a size such as 500MiB or 1GiB", part)
		}
	}
	if ages > 1 || sizes > 1 {
		return fmt.Errorf("%q has an age or a size twice", text)
	}
	*r = next
	return nil
}

func parseAge(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * day, err == nil && 0 < n && n <= 100*366
	}
	age, err := time.ParseDuration(text)
	return age, err == nil && age > 0
}

func parseBytes(text string) (int64, bool) {
	for _, unit := range byteUnits {
		if number, ok := strings.CutSuffix(text, unit.suffix); ok {
			n, err := strconv.ParseInt(number, 10, 64)
			return n * unit.bytes, err == nil && 0 < n && n <= (1<<60)/unit.bytes
		}
	}
	return 0, false
}
