//go:build !unix

package main

import "io"

// job is nothing: no shell stops processes here.
type job struct{ stop chan struct{} }

func controlJob() *job { return &job{} }

func (*job) doStop() {}

func (*job) release() {}

// inForeground reports whether an output is a terminal.
func inForeground(output io.Writer) bool { return isTerminal(output) }
