package history

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

const (
	// asHolder in the environment makes the test binary be the holder that is
	// stopped; it is the address of the daemon, and asHolderURL that of the
	// resources.
	asHolder    = "TEST_BINARY_IS_HOLDER"
	asHolderURL = "TEST_HOLDER_RESOURCES"

	fencedLock = "fenced"
	fencedTTL  = 500 * time.Millisecond
)

// resource is a number that clients read, add one to and write back, under a lock.
type resource struct {
	checks bool // refuse tokens below one that was seen

	mu       sync.Mutex
	number   int
	highest  uint64 // token
	accepted int    // updates
}

// ServeHTTP implements http.Handler.
func (r *resource) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.Method == http.MethodGet {
		fmt.Fprint(w, r.number)
		return
	}
	token, err := strconv.ParseUint(request.FormValue("token"), 10, 64)
	number, err2 := strconv.Atoi(request.FormValue("number"))
	switch {
	case err != nil || err2 != nil:
		http.Error(w, "no token or no number", http.StatusBadRequest)
	case r.checks && token < r.highest:
		http.Error(w, fmt.Sprintf("token %d is stale, %d was seen", token, r.highest), http.StatusConflict)
	default:
		r.highest = max(r.highest, token)
		r.number = number
		r.accepted++
		fmt.Fprintln(w, "written")
	}
}

// resources are the two that are compared, and their paths.
var resources = []string{"/checking", "/trusting"}

// updater adds one to both resources under the lock.
type updater struct {
	pylokv1.LockServiceClient
	url string
}

func newUpdater(address, url string) (*updater, *grpc.ClientConn, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	return &updater{pylokv1.NewLockServiceClient(conn), url}, conn, nil
}

// update adds one to both resources, and does something between reading and writing
// them. It returns how the writes ended.
func (u *updater) update(ctx context.Context, holder string, between func(token uint64) error) (answers []string, err error) {
	locked, err := u.Lock(ctx, &pylokv1.LockRequest{
		Name:   fencedLock,
		Holder: holder,
		Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(fencedTTL)},
		Wait:   durationpb.New(watchdog),
	})
	if err != nil {
		return nil, err
	}
	token := locked.GetLock().GetToken()
	defer u.Unlock(ctx, &pylokv1.UnlockRequest{Name: fencedLock, Token: token})
	numbers := make([]int, len(resources))
	for i, path := range resources {
		response, err := http.Get(u.url + path)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return nil, err
		}
		if numbers[i], err = strconv.Atoi(string(body)); err != nil {
			return nil, err
		}
	}
	if err := between(token); err != nil {
		return nil, err
	}
	for i, path := range resources {
		response, err := http.Post(fmt.Sprintf("%s%s?token=%d&number=%d", u.url, path, token, numbers[i]+1), "", nil)
		if err != nil {
			return nil, err
		}
		response.Body.Close()
		answers = append(answers, response.Status)
	}
	return answers, nil
}

// holderMain is a process that is stopped between reading and writing, at a moment
// when it is sure to hold the lock. Then it does it all again.
func holderMain() int {
	ctx := context.Background()
	u, conn, err := newUpdater(os.Getenv(asHolder), os.Getenv(asHolderURL))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer conn.Close()
	answers, err := u.update(ctx, "stopped", func(token uint64) error {
		if _, err := u.Renew(ctx, &pylokv1.RenewRequest{Name: fencedLock, Token: token}); err != nil {
			return err
		}
		fmt.Println("holds", token)
		_, err := bufio.NewReader(os.Stdin).ReadString('\n') // here it is stopped
		return err
	})
	fmt.Println("woke:", strings.Join(answers, ", "), err)
	answers, err = u.update(ctx, "stopped", func(uint64) error { return nil })
	fmt.Println("again:", strings.Join(answers, ", "), err)
	return 0
}

// TestFencing: a holder is stopped past its ttl, and wakes and writes. No lease can
// keep it from that; the resource that checks tokens can.
func TestFencing(t *testing.T) {
	const others = 5
	daemon := startForTest(t)
	checking, trusting := &resource{checks: true}, &resource{}
	mux := http.NewServeMux()
	mux.Handle(resources[0], checking)
	mux.Handle(resources[1], trusting)
	web := httptest.NewServer(mux)
	defer web.Close()

	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stopped := exec.Command(program)
	stopped.Env = append(os.Environ(), asHolder+"="+daemon.address, asHolderURL+"="+web.URL)
	stopped.Stderr = os.Stderr
	stdin, err := stopped.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := stopped.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	defer stopped.Wait()
	defer stopped.Process.Kill()
	defer time.AfterFunc(watchdog, func() { stopped.Process.Kill() }).Stop()
	said := bufio.NewReader(stdout)
	says := func(want string) {
		t.Helper()
		if line, err := said.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("the stopped holder says %q, %v; want %q", line, err, want)
		}
	}
	says("holds ")
	if err := stopped.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(stopped.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("waiting for it to stop: %v, %v", status, err)
	}
	// What it waits for comes while it is stopped, so it does not look again.
	if _, err := io.WriteString(stdin, "go on\n"); err != nil {
		t.Fatal(err)
	}

	u, conn, err := newUpdater(daemon.address, web.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range others {
		answers, err := u.update(t.Context(), fmt.Sprint("other-", i), func(uint64) error { return nil })
		if got := strings.Join(answers, ", "); err != nil || got != "200 OK, 200 OK" {
			t.Fatalf("update %d of others: %s, %v", i, got, err)
		}
	}
	if err := stopped.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	says("woke: 409 Conflict, 200 OK <nil>")
	says("again: 200 OK, 200 OK <nil>")

	for _, test := range []struct {
		name               string
		resource           *resource
		wantAccepted, want int
	}{
		// All the others', and the stopped holder's second.
		{"that checks tokens", checking, others + 1, others + 1},
		// The stopped holder's first is accepted too, on top of the 0 that it
		// had read, so that all the others' are lost.
		{"that does not", trusting, others + 2, 2},
	} {
		r := test.resource
		if r.accepted != test.wantAccepted || r.number != test.want {
			t.Errorf("the resource %s accepted %d updates and has the number %d, want %d and %d", test.name, r.accepted, r.number, test.wantAccepted, test.want)
		}
		t.Logf("the resource %s: %d updates accepted, %d lost", test.name, r.accepted, r.accepted-r.number)
	}
}
