package service

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// TestStopEndsStreams stops a server that streams of health checks and of reflection are
// open on, which have no end of their own: it waits for none of them.
func TestStopEndsStreams(t *testing.T) {
	r := serve(t, setup{})
	watch, err := healthv1.NewHealthClient(r.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	reflection, err := reflectionv1.NewServerReflectionClient(r.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := reflection.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := reflection.Recv(); err != nil {
		t.Fatal(err)
	}
	r.health.Shutdown()
	r.manager.Close()
	if !r.server.Stop(time.Minute) {
		t.Error("Stop says that it cut a call off")
	}
	if got, err := watch.Recv(); err == nil && got.GetStatus() == healthv1.HealthCheckResponse_NOT_SERVING {
		_, err = watch.Recv()
		refusedCode(t, err, codes.Unavailable)
	} else {
		refusedCode(t, err, codes.Unavailable)
	}
	_, err = reflection.Recv()
	refusedCode(t, err, codes.Unavailable)
}

// TestStopWaitsForHandlers cuts off a call that is committing: the store may be closed
// once Stop returns, so it returns after that call.
func TestStopWaitsForHandlers(t *testing.T) {
	store, committing, goOn := stuckStore()
	r := serve(t, setup{store: store})
	go r.Lock(t.Context(), &pylokv1.LockRequest{Name: "a"})
	<-committing
	r.manager.Close()
	stopped := make(chan bool, 1)
	go func() { stopped <- r.server.Stop(time.Millisecond) }()
	select {
	case <-stopped:
		t.Error("Stop has returned while a call was committing")
	case <-time.After(200 * time.Millisecond): // as long as it takes, and no proof
	}
	close(goOn)
	if <-stopped {
		t.Error("Stop says that all calls finished by themselves")
	}
}
