//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// group is a command in a process group of its own, with this process's standard
// input and outputs. On a terminal it is the group that the keyboard's signals go to
// and that may read, as far as this process's own was.
type group struct {
	pid int // the command's, and so the group's
	tty int // a descriptor of the controlling terminal; -1: there is none
}

// startGroup starts the command at path; command is its name and arguments.
func startGroup(path string, command, environment []string) (*group, error) {
	g := &group{tty: -1}
	if tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0); err == nil {
		g.tty = tty
	}
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if g.hasTerminal(syscall.Getpgrp()) && !inPipeline() {
		attributes.Foreground, attributes.Ctty = true, g.tty
	}
	endWithParent(attributes)
	process, err := os.StartProcess(path, command, &os.ProcAttr{
		Env:   environment,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   attributes,
	})
	// From now on another group may have the terminal, and neither writing to it nor
	// taking it back may stop this process. The command must not inherit this.
	signal.Ignore(syscall.SIGTTOU)
	if err != nil {
		if attributes.Foreground {
			_ = g.setTerminal(syscall.Getpgrp()) // the child may have got it before it failed
		}
		g.close()
		return nil, err
	}
	g.pid = process.Pid
	return g, process.Release() // poll waits for it
}

// inPipeline reports whether other commands of the shell's job read what this process
// writes, or the other way round. They may want the terminal as well, so the command
// gets it when it asks for it.
func inPipeline() bool {
	for _, file := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if info, err := file.Stat(); err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0 {
			return true
		}
	}
	return false
}

// close gives the terminal back.
func (g *group) close() {
	g.takeTerminal()
	if g.tty >= 0 {
		_ = unix.Close(g.tty)
		g.tty = -1
	}
}

// signal sends all processes of the group, if there are any, a signal.
func (g *group) signal(s syscall.Signal) error {
	if err := syscall.Kill(-g.pid, s); err != nil && err != syscall.ESRCH {
		return fmt.Errorf("the command cannot be sent the signal %s: %w", unix.SignalName(s), err)
	}
	return nil
}

// isAlive reports whether there are processes in the group. When the command has been
// waited for they are those that it has left behind.
func (g *group) isAlive() bool { return syscall.Kill(-g.pid, 0) != syscall.ESRCH }

// poll returns how the command has ended or stopped since the last time; false: it
// has not. Only here it is waited for, so that its process id, as long as signals go
// to it, is nobody else's.
func (g *group) poll() (status syscall.WaitStatus, changed bool, err error) {
	for {
		pid, err := syscall.Wait4(g.pid, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch err {
		case nil:
			return status, pid == g.pid, nil
		case syscall.EINTR:
		default:
			return 0, false, fmt.Errorf("how the command ended cannot be told: %w", err)
		}
	}
}

// hasTerminal reports whether a process group is the terminal's foreground.
func (g *group) hasTerminal(pgid int) bool {
	if g.tty < 0 {
		return false
	}
	foreground, err := unix.IoctlGetInt(g.tty, unix.TIOCGPGRP)
	return err == nil && foreground == pgid
}

func (g *group) setTerminal(pgid int) error {
	return unix.IoctlSetPointerInt(g.tty, unix.TIOCSPGRP, pgid)
}

// takeTerminal takes the terminal back if the group has it.
func (g *group) takeTerminal() {
	if g.hasTerminal(g.pid) {
		_ = g.setTerminal(syscall.Getpgrp()) // it may be gone by now
	}
}

// goOn lets the group go on if it is stopped, with the terminal if it is this
// process's to give.
func (g *group) goOn() error {
	if g.hasTerminal(syscall.Getpgrp()) && !inPipeline() {
		if err := g.setTerminal(g.pid); err != nil {
			return fmt.Errorf("the command cannot be given the terminal: %w", err)
		}
	}
	return g.signal(syscall.SIGCONT)
}

// wantsTerminal reports whether the group was stopped because it wants the terminal,
// which this process has. It is then given it.
func (g *group) wantsTerminal(stoppedBy syscall.Signal) bool {
	if stoppedBy != syscall.SIGTTIN && stoppedBy != syscall.SIGTTOU || !g.hasTerminal(syscall.Getpgrp()) {
		return false
	}
	return g.setTerminal(g.pid) == nil
}

// isJob reports whether the group was stopped as a shell's job is: from the keyboard,
// or when it wants the terminal and is in the background.
func (g *group) isJob(stoppedBy syscall.Signal) bool {
	switch stoppedBy {
	case syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		return g.tty >= 0
	}
	return g.hasTerminal(g.pid)
}
