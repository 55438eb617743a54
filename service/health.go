package service

import (
	"sync"

	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// Health answers grpc.health.v1 for the server as a whole, whose name there is
// empty, and for pylok.v1.LockService. It begins as SERVING.
type Health struct {
	server *health.Server

	mu      sync.Mutex
	parts   int
	failing map[int]bool // by part
}

// NewHealth returns a Health, to be given to NewServer.
func NewHealth() *Health {
	h := &Health{server: health.NewServer(), failing: make(map[int]bool)}
	h.updateLocked() // nobody else has h yet
	return h
}

// Part returns the function by which one part of the server says how it is: it is called
// with an error when the part fails and with nil when it works again. The server is
// NOT_SERVING while any part fails. After Shutdown the function does nothing.
func (h *Health) Part() func(error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	part := h.parts
	h.parts++
	return func(err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if err != nil {
			h.failing[part] = true
		} else {
			delete(h.failing, part)
		}
		h.updateLocked()
	}
}

// updateLocked sets what is answered. The caller must hold mu.
func (h *Health) updateLocked() {
	answer := healthv1.HealthCheckResponse_SERVING
	if len(h.failing) > 0 {
		answer = healthv1.HealthCheckResponse_NOT_SERVING
	}
	h.server.SetServingStatus("", answer)
	h.server.SetServingStatus(pylokv1.LockService_ServiceDesc.ServiceName, answer)
}

// Shutdown says NOT_SERVING from now on.
func (h *Health) Shutdown() { h.server.Shutdown() }
