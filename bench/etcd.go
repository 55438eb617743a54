package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

const etcdStartLimit = time.Minute

// serveEtcd runs one etcd member with its defaults, which make every change durable
// before it is answered.
func serveEtcd(ctx context.Context, dir string) error {
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = dir + "/data"
	config.LogLevel = "error"
	config.ListenClientUrls, config.AdvertiseClientUrls = loopback, loopback
	config.ListenPeerUrls, config.AdvertisePeerUrls = loopback, loopback
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	member, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer member.Close()
	select {
	case <-member.Server.ReadyNotify():
	case err := <-member.Err():
		return err
	case <-time.After(etcdStartLimit):
		return fmt.Errorf("etcd was not ready after %v", etcdStartLimit)
	}
	fmt.Println(member.Clients[0].Addr())
	select {
	case <-ctx.Done():
		return nil
	case err := <-member.Err():
		return err
	}
}

func startEtcd(ctx context.Context, _ *settings, dir string) (*contender, error) {
	server, address, err := startChild(ctx, "etcd", dir)
	if err != nil {
		return nil, err
	}
	t := &etcdTarget{address: address}
	if t.client, err = t.dial(); err != nil {
		return nil, errors.Join(err, server.stop())
	}
	return &contender{
		server: server,
		target: t,
		about:  "etcd " + version.Version + ", one member with its defaults; concurrency.Mutex, a session for each caller; all callers share one client",
	}, nil
}

// etcdTarget takes locks with concurrency.Mutex. Each caller has a session of its
// own, as a program of its own would: two Mutexes of one session and one name are the
// same hold.
type etcdTarget struct {
	address string
	client  *clientv3.Client
	callers []etcdCaller

	mu          sync.Mutex
	subscribers []*clientv3.Client // by the number of the connection
}

type etcdCaller struct {
	session *concurrency.Session
	held    *concurrency.Mutex
}

func (t *etcdTarget) dial() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{t.address}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
}

// Callers implements load.Target.
func (t *etcdTarget) Callers(_ context.Context, n int) error {
	for len(t.callers) < n {
		session, err := concurrency.NewSession(t.client)
		if err != nil {
			return err
		}
		t.callers = append(t.callers, etcdCaller{session: session})
	}
	return nil
}

// Lock implements load.Target.
func (t *etcdTarget) Lock(ctx context.Context, caller int, name string) error {
	c := &t.callers[caller]
	c.held = concurrency.NewMutex(c.session, name)
	return c.held.Lock(ctx)
}

// Unlock implements load.Target.
func (t *etcdTarget) Unlock(ctx context.Context, caller int, _ string) error {
	return t.callers[caller].held.Unlock(ctx)
}

// Status implements load.Target.
func (t *etcdTarget) Status(ctx context.Context, _ int, name string) error {
	_, err := t.client.Get(ctx, name+"/", clientv3.WithFirstCreate()...)
	return err
}

// Subscribe implements load.Target.
func (t *etcdTarget) Subscribe(ctx context.Context, connection int, prefix string, ready func(), changed func(n int)) error {
	client, err := t.subscriber(connection)
	if err != nil {
		return err
	}
	for response := range client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		switch {
		case response.Err() != nil:
			return response.Err()
		case response.Created:
			ready()
		}
		changed(len(response.Events))
	}
	return errors.New("the watch ended")
}

func (t *etcdTarget) subscriber(connection int) (*clientv3.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.subscribers) <= connection {
		client, err := t.dial()
		if err != nil {
			return nil, err
		}
		t.subscribers = append(t.subscribers, client)
	}
	return t.subscribers[connection], nil
}

// Close implements load.Target.
func (t *etcdTarget) Close() error {
	var errs []error
	for _, c := range t.callers {
		errs = append(errs, c.session.Close())
	}
	for _, client := range append(t.subscribers, t.client) {
		errs = append(errs, client.Close())
	}
	return errors.Join(errs...)
}
