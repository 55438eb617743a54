package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
)

const redisStartLimit = 10 * time.Second

// startRedis starts Debian's redis-server so that it answers a change only after an
// fsync of its log.
func startRedis(ctx context.Context, _ *settings, dir string) (*contender, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, errors.New("there is no redis-server: install the Debian package redis-server, or leave Redis out with -only pylok,empty,etcd,files")
	}
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking redis-server for its version: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	server, err := startProcess(ctx, filepath.Join(dir, "log"), nil, nil, program,
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--appendonly", "yes", "--appendfsync", "always", "--save", "",
		"--notify-keyspace-events", "Kg$")
	if err != nil {
		return nil, err
	}
	t := &redisTarget{address: fmt.Sprintf("127.0.0.1:%d", port)}
	t.resize(1)
	for began := time.Now(); t.client.Ping(ctx).Err() != nil; time.Sleep(10 * time.Millisecond) {
		select {
		case <-server.exited:
			return nil, fmt.Errorf("redis-server ended (%v): %s", server.err, server.lastWords())
		default:
		}
		if time.Since(began) > redisStartLimit || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("redis-server did not answer within %v", redisStartLimit), server.stop())
		}
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(string(version), "Redis server v="), " ")
	return &contender{
		server: server,
		target: t,
		about:  "Redis " + number + ", appendonly yes, appendfsync always; bsm/redislock with a ttl and go-redis with a connection for each caller; waiters ask again every 1 ms, or where they are more than 10, 10,000 times a second in all; subscribers get keyspace notifications, which are lost when the connection is",
	}, nil
}

// freePort returns a port that was free just now: Redis does not choose one itself.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// redisTarget takes locks with redislock.
type redisTarget struct {
	address string
	client  *redis.Client
	locker  *redislock.Client
	held    []*redislock.Lock // by caller

	mu    sync.Mutex
	taken map[int]bool // connections with a subscriber
}

// Redis forgets a lock after this long, unless it is refreshed.
const redisTTL = 10 * time.Minute

// resize makes room for n callers that each have a connection.
func (t *redisTarget) resize(n int) {
	if t.client != nil {
		t.client.Close()
	}
	t.client = redis.NewClient(&redis.Options{Addr: t.address, PoolSize: n, PoolTimeout: time.Minute})
	t.locker = redislock.New(t.client)
	t.held = make([]*redislock.Lock, n)
}

// Callers implements load.Target.
func (t *redisTarget) Callers(_ context.Context, n int) error {
	if n > len(t.held) {
		t.resize(n)
	}
	return nil
}

// Lock implements load.Target.
func (t *redisTarget) Lock(ctx context.Context, caller int, name string) error {
	again := max(time.Millisecond, time.Duration(len(t.held))*100*time.Microsecond)
	// Obtain gives up after its ttl, unless ctx has a deadline.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	held, err := t.locker.Obtain(ctx, name, redisTTL, &redislock.Options{RetryStrategy: redislock.LinearBackoff(again)})
	t.held[caller] = held
	return err
}

// Unlock implements load.Target.
func (t *redisTarget) Unlock(ctx context.Context, caller int, _ string) error {
	return t.held[caller].Release(ctx)
}

// Status implements load.Target.
func (t *redisTarget) Status(ctx context.Context, _ int, name string) error {
	return t.client.Get(ctx, name).Err()
}

// Subscribe implements load.Target. A connection has one subscriber.
func (t *redisTarget) Subscribe(ctx context.Context, connection int, prefix string, ready func(), changed func(n int)) error {
	t.mu.Lock()
	if t.taken == nil {
		t.taken = make(map[int]bool)
	}
	taken := t.taken[connection]
	t.taken[connection] = true
	t.mu.Unlock()
	if taken {
		return errors.ErrUnsupported
	}
	defer func() {
		t.mu.Lock()
		delete(t.taken, connection)
		t.mu.Unlock()
	}()
	client := redis.NewClient(&redis.Options{Addr: t.address, PoolSize: 1})
	defer client.Close()
	subscription := client.PSubscribe(ctx, "__keyspace@0__:"+prefix+"*")
	defer subscription.Close()
	defer context.AfterFunc(ctx, func() { subscription.Close() })()
	for {
		message, err := subscription.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *redis.Subscription:
			ready()
		case *redis.Message:
			if m.Payload == "set" || m.Payload == "del" { // not expire, which a set with a ttl sends too
				changed(1)
			}
		}
	}
}

// Close implements load.Target.
func (t *redisTarget) Close() error { return t.client.Close() }
