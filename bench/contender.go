package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pylok/pylok/internal/load"
)

// contender is a way to have locks, started on fresh data.
type contender struct {
	name   string
	target load.Target
	server *process // nil: there is none, the work is done in the benchmark itself
	about  string   // version and settings, for the report
}

// starter starts a contender on an empty directory of its own.
type starter struct {
	name  string
	start func(ctx context.Context, s *settings, dir string) (*contender, error)
}

// starters are the contenders in the order of the report.
var starters = []starter{
	{"pylok", startPylok},
	{"empty", startEmpty},
	{"etcd", startEtcd},
	{"redis", startRedis},
	{"files", startFiles},
}

// startContenders starts those that are wanted. The error stops those that run.
func startContenders(ctx context.Context, s *settings, dir string) (all []*contender, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, stopContenders(all))
		}
	}()
	for _, starter := range starters {
		if !s.wants(starter.name) {
			continue
		}
		own := filepath.Join(dir, starter.name)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return all, err
		}
		c, err := starter.start(ctx, s, own)
		if err != nil {
			return all, fmt.Errorf("%s: %w", starter.name, err)
		}
		c.name = starter.name
		all = append(all, c)
	}
	return all, nil
}

func stopContenders(all []*contender) error {
	var errs []error
	for _, c := range all {
		err := c.target.Close()
		if c.server != nil {
			err = errors.Join(err, c.server.stop())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("stopping %s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}

// cpu returns the CPU time of the server, or of the benchmark where the work is done
// there.
func (c *contender) cpu() (time.Duration, error) {
	if c.server != nil {
		return c.server.cpu()
	}
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}

// rss returns the server's resident memory in bytes, 0 where there is no server.
func (c *contender) rss() (int64, error) {
	if c.server == nil {
		return 0, nil
	}
	return c.server.rss()
}
