package history

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pylok/pylok/filestore"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
	"github.com/pylok/pylok/service"
)

// local is a server within the test, of whose parts a test can make each worse. It is ended
// as well as a part of a process can be; what is in its store stays.
type local struct {
	open func() (lock.Store, error)
	with func(lock.Locks) lock.Locks // nil: as it is

	store   lock.Store
	manager *manager.Manager
	server  *grpc.Server
	served  chan error
}

func (s *local) start() (string, error) {
	var err error
	if s.store, err = s.open(); err != nil {
		return "", err
	}
	if s.manager, err = manager.New(s.store, manager.Config{}); err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	var locks lock.Locks = s.manager
	if s.with != nil {
		locks = s.with(locks)
	}
	s.server = grpc.NewServer()
	pylokv1.RegisterLockServiceServer(s.server, service.New(locks, service.Config{}))
	s.served = make(chan error, 1)
	go func() { s.served <- s.server.Serve(listener) }()
	return listener.Addr().String(), nil
}

func (s *local) kill() error { return s.stop() }

func (s *local) stop() error {
	s.manager.Close()
	s.server.Stop()
	return errors.Join(<-s.served, s.store.Close())
}

// keeps is a store that goes on after Close, for memstore forgets all then.
type keeps struct{ lock.Store }

func (keeps) Close() error { return nil }

// inMemory opens the same store each time.
func inMemory() func() (lock.Store, error) {
	store := keeps{memstore.New(memstore.Config{})}
	return func() (lock.Store, error) { return store, nil }
}

// inFiles opens a store on a root.
func inFiles(root string) func() (lock.Store, error) {
	return func() (lock.Store, error) {
		return filestore.Open(context.Background(), filestore.Config{Root: root})
	}
}

// attend holds a party and checks what was seen.
func attend(t *testing.T, s partySettings, on server) *replay {
	t.Helper()
	p, err := newParty(t.Context(), s, on)
	if err != nil {
		t.Fatalf("seed %d: %v", s.seed, err)
	}
	r := p.check()
	whole, parts := 0, 0
	for id := range r.granted {
		parts = max(parts, p.demands[id].size())
		if p.demands[id].size() > 1 {
			whole++
		}
	}
	unsure := 0
	for _, a := range p.acts {
		if a.outcome == unknown {
			unsure++
		}
	}
	t.Logf("%d calls, %d of unknown outcome, %d servers, %d events; %d demands, %d granted, of these %d sets, the largest of %d; %d handed over, %d stale; %d seen in line, %d pairs compared",
		len(p.acts), unsure, len(p.started), len(p.history), len(p.demands), len(r.granted), whole, parts, len(r.handed), len(r.stale), r.stood, r.overtakes)
	return r
}

// numbered returns n names.
func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s/%d", prefix, i))
	}
	return names
}

// mixedNames are names above and below each other, and others.
var mixedNames = []string{"a", "a/b", "a/b/c", "a/b/d", "a/e", "b", "b/c", "p/1", "p/2", "p/3", "p/4", "x"}

// TestSets: guests want up to 64 locks at once.
func TestSets(t *testing.T) {
	testParties(t, partySettings{guests: 32, names: numbered("s", 64), largest: 64, keep: 10, disturb: 6})
}

// TestKinds: guests want sets, pools, trees and shared holds.
func TestKinds(t *testing.T) {
	testParties(t, partySettings{guests: 32, names: mixedNames, largest: 6, kinds: true, keep: 10, disturb: 6})
}

// testParties holds parties on all kinds of servers.
func testParties(t *testing.T, s partySettings) {
	s.seed = *seedFlag
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano())
	}
	for _, test := range []struct {
		name string
		on   func(t *testing.T, root string) server
		life time.Duration
		part int // of the time, in percent
	}{
		{"memory", func(*testing.T, string) server { return &local{open: inMemory()} }, 0, 5},
		{"files", func(_ *testing.T, root string) server { return &local{open: inFiles(root)} }, time.Second, 5},
		{"daemon", func(t *testing.T, root string) server { build(t); return &daemon{root: root} }, 1500 * time.Millisecond, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory, err := os.MkdirTemp("", "pylok-sets-")
			if err != nil {
				t.Fatal(err)
			}
			s := s
			s.life = test.life
			s.duration = *durationFlag * time.Duration(test.part) / 100
			r := attend(t, s, test.on(t, filepath.Join(directory, "root")))
			for i, problem := range r.problems {
				if i < 20 {
					t.Error(problem)
				}
			}
			if t.Failed() {
				t.Logf("seed %d, %d problems; the root is in %s", s.seed, len(r.problems), directory)
				return
			}
			os.RemoveAll(directory)
		})
	}
}
