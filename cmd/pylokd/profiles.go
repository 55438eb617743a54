package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"
)

// serveProfiles serves net/http/pprof on a loopback address; on an empty one it does
// nothing. Profiles show what a program does and holds, so they have no way out of
// the machine.
func serveProfiles(text string, log *slog.Logger) (stop func(), err error) {
	if text == "" {
		return func() {}, nil
	}
	address, err := resolve("--pprof", text)
	if err != nil {
		return nil, err
	}
	if !address.IP.IsLoopback() {
		return nil, usageError{fmt.Errorf("--pprof is %q; profiles are served on loopback only, such as 127.0.0.1:6060", text)}
	}
	listener, err := listen("--pprof", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) // ends with Close
	log.Info("serving profiles", "url", fmt.Sprintf("http://%s/debug/pprof/", listener.Addr()))
	return func() { server.Close() }, nil
}
