package main

import (
	"log/slog"
	"syscall"

	"github.com/pylok/pylok/access/limits"
	"github.com/pylok/pylok/lock"
)

// waitingBytesPerCaller is a quarter of what the manager keeps for all waits.
const waitingBytesPerCaller = 32 << 20

// callerLimits are the limits of callers that the flags ask for. What is held all tells.
func (c *config) callerLimits(all lock.Locks, log *slog.Logger) limits.Config {
	return limits.Config{
		Rate:            c.maxRequestsPerSecond,
		MaxCalls:        c.maxCallsPerCaller,
		MaxWaits:        c.maxWaitsPerCaller,
		MaxWaitingBytes: waitingBytesPerCaller,
		MaxWatches:      c.maxWatchesPerCaller,
		MaxWatchesTotal: c.maxWatches,
		MaxScans:        c.maxScansPerCaller,
		MaxHolds:        c.maxHoldsPerCaller,
		Follow:          all,
		Logger:          log,
	}
}

// mostOfOneAddress is how many connections one address may have, unless the flags say
// otherwise: those of a thousand jobs behind one address with a few each.
const mostOfOneAddress = 4096

// connectionLimits returns how many connections may be open, and from one address, where
// the process may have so many files open: a part of those is for the store's own, half
// where they are few. 0: any number.
func (c *config) connectionLimits(files int) (all, perAddress int) {
	const own = 2048
	all = c.maxConnections
	if files > 0 {
		most := files - min(own, files/2)
		if all = min(all, most); all == 0 {
			all = most
		}
	}
	switch {
	case c.maxConnectionsPerPlace > 0:
		return all, c.maxConnectionsPerPlace
	case all == 0:
		return all, mostOfOneAddress
	}
	return all, min(max(all/2, 1), mostOfOneAddress)
}

// openFiles returns how many files the process may have open; 0: it is not known.
func openFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30))
}
