//go:build unix

package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// job is this process as a shell's job that has something on the terminal to take away
// before it stops.
type job struct {
	stop      chan os.Signal // it is told to stop, as by control-Z
	continued chan os.Signal
}

// controlJob catches what stops the job. Where that is ignored, nobody would let it go
// on.
func controlJob() *job {
	j := &job{stop: make(chan os.Signal, 1), continued: make(chan os.Signal, 1)}
	if !signal.Ignored(syscall.SIGTSTP) {
		signal.Notify(j.stop, syscall.SIGTSTP)
		signal.Notify(j.continued, syscall.SIGCONT)
	}
	return j
}

// doStop stops the job, and returns when it goes on.
func (j *job) doStop() {
	select {
	case <-j.continued: // an old one
	default:
	}
	wentOn, err := stopJob()
	if err == nil {
		select {
		case <-j.continued:
		case <-time.After(stopWithin):
		}
	}
	wentOn()
}

// release catches nothing any more.
func (j *job) release() {
	signal.Stop(j.stop)
	signal.Stop(j.continued)
}

// inForeground reports whether an output is a terminal that this process may draw on: it
// is not in the background, where a shell or another job writes.
func inForeground(output io.Writer) bool {
	if !isTerminal(output) {
		return false
	}
	foreground, err := unix.IoctlGetInt(int(output.(*os.File).Fd()), unix.TIOCGPGRP)
	return err != nil || foreground == syscall.Getpgrp() // an error: it is not the one that controls us
}
