package service

import (
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// Health answers grpc.health.v1 for the server as a whole, whose name there is
// empty, and for pylok.v1.LockService. It begins as SERVING.
type Health struct{ server *health.Server }

// NewHealth returns a Health, to be given to NewServer and to the store.
func NewHealth() *Health {
	h := &Health{health.NewServer()}
	h.Report(nil)
	return h
}

// Report says whether changes can be made: NOT_SERVING with an error, SERVING with
// nil. After Shutdown it does nothing.
func (h *Health) Report(err error) {
	answer := healthv1.HealthCheckResponse_SERVING
	if err != nil {
		answer = healthv1.HealthCheckResponse_NOT_SERVING
	}
	h.server.SetServingStatus("", answer)
	h.server.SetServingStatus(pylokv1.LockService_ServiceDesc.ServiceName, answer)
}

// Shutdown says NOT_SERVING from now on.
func (h *Health) Shutdown() { h.server.Shutdown() }
