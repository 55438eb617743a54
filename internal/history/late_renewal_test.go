package history

import (
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// TestLateRenewal: a renewal of a hold that has expired is answered with NOT_HOLDER,
// whatever has happened since.
func TestLateRenewal(t *testing.T) {
	build(t)
	root := t.TempDir()
	var daemon *process
	var client *link
	start := func() {
		var err error
		if daemon, err = startProcess(root); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { daemon.signal(syscall.SIGKILL) })
		if client, err = dial(&generation{address: daemon.address}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.conn.Close() })
	}
	// expires returns the token of a hold that has expired.
	expires := func() uint64 {
		locked, err := client.Lock(t.Context(), &pylokv1.LockRequest{
			Name:   "a",
			Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(100 * time.Millisecond)},
		})
		if err != nil {
			t.Fatal(err)
		}
		next, err := client.Lock(t.Context(), &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(watchdog)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Unlock(t.Context(), &pylokv1.UnlockRequest{Name: "a", Token: next.GetLock().GetToken()}); err != nil {
			t.Fatal(err)
		}
		return locked.GetLock().GetToken()
	}
	renew := func(token uint64, when string) {
		t.Helper()
		_, err := client.Renew(t.Context(), &pylokv1.RenewRequest{Name: "a", Token: token})
		reason := ""
		for _, detail := range status.Convert(err).Details() {
			if info, ok := detail.(*errdetails.ErrorInfo); ok {
				reason = info.GetReason()
			}
		}
		if reason != "NOT_HOLDER" {
			t.Errorf("renewing an expired hold %s: got %q (%v), want NOT_HOLDER", when, reason, err)
		}
	}
	start()
	first := expires()
	renew(first, "when it was the last to expire")
	second := expires()
	renew(first, "when another has expired since")
	daemon.signal(syscall.SIGKILL)
	start()
	renew(second, "after a restart")
}
