package main

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestDefaults(t *testing.T) {
	got, _, err := parse(nil, environment("HOME", "/home/alice"))
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		root:            "/home/alice/.local/state/pylok/locks",
		stateDir:        "/home/alice/.local/state/pylok",
		listen:          "127.0.0.1:5625",
		maxLocks:        2_000_000,
		maxWaiters:      16_384,
		maxWaitersTotal: 65_536,
		maxWait:         24 * time.Hour,
		pollInterval:    time.Second,
		history:         retention{age: 90 * 24 * time.Hour, bytes: 1 << 30},
		logFormat:       "text",
		socket:          defaultSocket(environment(), os.Geteuid()),
		socketMode:      0o666,
		tlsClientCert:   "request",
		tlsMinVersion:   "1.3",

		maxRequestsPerSecond: 20_000,
		maxCallsPerCaller:    32_768,
		maxWaitsPerCaller:    16_384,
		maxWatches:           32_768,
		maxWatchesPerCaller:  8_192,
		maxScansPerCaller:    4,
		maxHoldsPerCaller:    1_000_000,
		maxStreams:           32_768,
		idleTimeout:          15 * time.Minute,

		stateDirIsDefault: true,
		socketIsDefault:   true,
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDefaultRoot(t *testing.T) {
	for _, test := range []struct {
		name string
		env  []string
		uid  int
		want string
	}{
		{"home", []string{"HOME", "/home/a"}, 1000, "/home/a/.local/state/pylok/locks"},
		{"root's home", []string{"HOME", "/root"}, 0, "/root/.local/state/pylok/locks"},
		{"XDG", []string{"HOME", "/home/a", "XDG_STATE_HOME", "/state"}, 1000, "/state/pylok/locks"},
		{"XDG not absolute", []string{"HOME", "/home/a", "XDG_STATE_HOME", "state"}, 1000, "/home/a/.local/state/pylok/locks"},
		{"root without a home", nil, 0, "/var/lib/pylok/locks"},
		{"root at home in /", []string{"HOME", "/"}, 0, "/var/lib/pylok/locks"},
		{"nobody", nil, 1000, ""},
		{"nobody at home in /", []string{"HOME", "/"}, 1000, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := defaultRoot(environment(test.env...), test.uid); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	got, _, err := parse([]string{"--listen", "127.0.0.1:1"}, environment("HOME", "/h",
		"PYLOKD_LISTEN", "127.0.0.1:2", "PYLOKD_ROOT", "/srv/x", "PYLOKD_LOG_LEVEL", "debug", "PYLOKD_INSECURE", "true", "PYLOKD_HISTORY", "36h"))
	if err != nil {
		t.Fatal(err)
	}
	if got.listen != "127.0.0.1:1" || got.root != "/srv/x" || got.logLevel != slog.LevelDebug || !got.insecure ||
		got.history != (retention{age: 36 * time.Hour, bytes: 1 << 30}) {
		t.Errorf("got %+v", got)
	}
}

func TestWrongCommandLines(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // in the message
	}{
		{"--no-such-flag", "no-such-flag"},
		{"serve", `"serve" is not a flag`},
		{"--root=", "--root is empty"},
		{"--tls-cert c.pem", "--tls-key"},
		{"--tls-key k.pem", "--tls-cert"},
		{"--max-locks 0", "--max-locks is 0"},
		{"--max-waiters -1", "--max-waiters is -1"},
		{"--max-waiters-total 0", "--max-waiters-total is 0"},
		{"--max-wait 25h", "at most 24h"},
		{"--max-wait 0s", "--max-wait is 0s"},
		{"--max-requests-per-second -1", "--max-requests-per-second is -1"},
		{"--max-requests-per-second NaN", "--max-requests-per-second is NaN"},
		{"--max-calls-per-caller -1", "--max-calls-per-caller is -1"},
		{"--max-waits-per-caller -1", "--max-waits-per-caller is -1"},
		{"--max-watches -1", "--max-watches is -1"},
		{"--max-watches-per-caller -1", "--max-watches-per-caller is -1"},
		{"--max-scans-per-caller -1", "--max-scans-per-caller is -1"},
		{"--max-holds-per-caller -1", "--max-holds-per-caller is -1"},
		{"--max-connections -1", "--max-connections is -1"},
		{"--max-connections-per-address -1", "--max-connections-per-address is -1"},
		{"--max-streams 0", "--max-streams is 0"},
		{"--idle-timeout 1ms", "1s or more"},
		{"--poll-interval 1ms", "10ms or more"},
		{"--history 90", `"90" is neither`},
		{"--history 1d,2d", "twice"},
		{"--history -1d", "neither"},
		{"--history 9999999d", "neither"},
		{"--history 99999999999TiB", "neither"},
		{"--history ,", "neither"},
		{"--log-format xml", "text or json"},
		{"--log-level loud", "loud"},
	} {
		t.Run(test.args, func(t *testing.T) {
			_, _, err := parse(strings.Fields(test.args), environment("HOME", "/h"))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			if code := exitCode(err, io.Discard); code != 2 {
				t.Errorf("got exit code %d, want 2", code)
			}
		})
	}
	t.Run("time zone", func(t *testing.T) {
		for tz, want := range map[string]bool{"": true, "UTC": true, "Europe/Berlin": true, ":Asia/Tokyo": true, "Berlin": false, "CET-1CEST": false, "/no/such/file": false} {
			if _, _, err := parse(nil, environment("HOME", "/h", "TZ", tz)); (err == nil) != want || err != nil && !strings.Contains(err.Error(), "time zone") {
				t.Errorf("TZ=%q: %v", tz, err)
			}
		}
	})
	t.Run("no settings", func(t *testing.T) {
		c, text, err := parse(nil, environment("HOME", "/h", "PYLOKD_VERSION", "1.0.0", "PYLOKD_HELP", "please", "PYLOKD_CHECK", "true"))
		if err != nil || text != "" || c.check {
			t.Errorf("got %+v, %q, %v", c, text, err)
		}
	})
	t.Run("environment", func(t *testing.T) {
		_, _, err := parse(nil, environment("HOME", "/h", "PYLOKD_MAX_LOCKS", "many"))
		if err == nil || !strings.Contains(err.Error(), "PYLOKD_MAX_LOCKS") || exitCode(err, io.Discard) != 2 {
			t.Errorf("got %v, want a usage error that names the variable", err)
		}
	})
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		config config
		want   string // in the message; empty: good
	}{
		{config{listen: "127.0.0.1:5625"}, ""},
		{config{listen: "127.9.9.9:0"}, ""},
		{config{listen: "[::1]:0"}, ""},
		{config{listen: "localhost:0"}, ""},
		{config{listen: "0.0.0.0:5625"}, "--insecure"},
		{config{listen: ":5625"}, "--tls-cert"},
		{config{listen: "[::]:5625"}, "--insecure"},
		{config{listen: "192.0.2.1:5625"}, "--insecure"},
		{config{listen: "0.0.0.0:5625", insecure: true}, ""},
		{config{listen: "0.0.0.0:5625", tlsCert: "c", tlsKey: "k"}, ""},
		{config{listen: "5625"}, "HOST:PORT"},
		{config{listen: ""}, "HOST:PORT"},
		{config{listen: "127.0.0.1:99999"}, "99999"},
	} {
		_, err := test.config.address()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%+v: got %v, want none", test.config, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || exitCode(err, io.Discard) != 2):
			t.Errorf("%+v: got %v, want a usage error with %q", test.config, err, test.want)
		}
	}
}

func TestRetention(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"90d,1GiB", "90d,1GiB"},
		{"1GiB,90d", "90d,1GiB"},
		{"7d", "7d,2KiB"},
		{"36h", "36h0m0s,2KiB"},
		{"48h", "2d,2KiB"},
		{"1536MiB", "1d,1536MiB"},
		{"1024MiB", "1d,1GiB"},
		{" 3d , 5TiB ", "3d,5TiB"},
	} {
		r := retention{age: day, bytes: 2048}
		if err := r.Set(test.text); err != nil || r.String() != test.want {
			t.Errorf("%q: got %s, %v, want %s", test.text, r.String(), err, test.want)
		}
	}
}

func TestWithin(t *testing.T) {
	want := errors.New("x")
	if got := within(time.Hour, func() error { return want }); got != want {
		t.Errorf("got %v, want what the function returned", got)
	}
	if got := within(time.Millisecond, func() error { select {} }); got == nil {
		t.Error("got nil, want an error for a stop that hangs")
	}
}
