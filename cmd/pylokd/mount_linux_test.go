package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
)

// mount mounts a tmpfs for the test, which only root may do.
func mount(t *testing.T, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("NOT TESTED: what pylokd does on this disk, because nothing can be mounted here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

func TestReadOnlyDisk(t *testing.T) {
	disk := mount(t, syscall.MS_RDONLY, "")
	for _, root := range []string{disk, filepath.Join(disk, "below")} {
		says(t, fails(t, 1, "--root", root, "--listen", "127.0.0.1:0"), root, "read-only file system")
	}
}

func TestFullDisk(t *testing.T) {
	disk := mount(t, 0, "size=64k")
	says(t, fails(t, 1, "--root", disk, "--listen", "127.0.0.1:0"), disk, "no space left on device")
}

// TestRestartOnFullDisk stops the server when its disk is full, cleanly or not, and starts
// it there: holds can be released, whatever else must wait for room.
func TestRestartOnFullDisk(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean stop: %v", clean), func(t *testing.T) {
			disk := mount(t, 0, "size=16m")
			args := []string{"--root", filepath.Join(disk, "locks"), "--listen", "127.0.0.1:0"}
			p := start(t, nil, args...)
			ctx := t.Context()
			const holds = 20
			tokens := make(map[string]uint64)
			for n := range holds {
				held, err := p.client(t, insecure.NewCredentials()).Lock(ctx, &pylokv1.LockRequest{Name: fmt.Sprintf("held-%d", n), Holder: "alice"})
				if err != nil {
					t.Fatal(err)
				}
				tokens[held.GetLock().GetName()] = held.GetLock().GetToken()
			}
			names := slices.Sorted(maps.Keys(tokens))
			for round := range 4 {
				fill(t, filepath.Join(disk, fmt.Sprint("ballast", round)))
				if clean {
					p.stop(t)
				} else {
					p.Process.Kill()
					<-p.ended
				}
				fill(t, filepath.Join(disk, fmt.Sprint("more", round))) // what the stop gave back
				p = start(t, nil, args...)
				c := p.client(t, insecure.NewCredentials())
				for _, name := range names[round*holds/4 : (round+1)*holds/4] {
					if _, err := c.Unlock(ctx, &pylokv1.UnlockRequest{Name: name, Token: tokens[name]}); err != nil {
						t.Errorf("round %d: releasing %s on a full disk: %v", round, name, err)
					}
				}
			}
			for round := range 4 {
				for _, file := range []string{"ballast", "more"} {
					if err := os.Remove(filepath.Join(disk, fmt.Sprint(file, round))); err != nil {
						t.Fatal(err)
					}
				}
			}
			p.stop(t)
			p = start(t, nil, args...)
			if _, err := p.client(t, insecure.NewCredentials()).Lock(ctx, &pylokv1.LockRequest{Name: "with-room"}); err != nil {
				t.Error(err)
			}
			p.stop(t)
		})
	}
}

// TestDiskThatFills: while nothing can be written, changes are refused, what stands
// can be read, and health checks say so.
func TestDiskThatFills(t *testing.T) {
	disk := mount(t, 0, "size=16m")
	p := start(t, nil, "--root", filepath.Join(disk, "locks"), "--listen", "127.0.0.1:0")
	client := p.client(t, insecure.NewCredentials())
	ctx := t.Context()
	held, err := client.Lock(ctx, &pylokv1.LockRequest{Name: "before", Holder: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	told := func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		response, err := health.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if response.GetStatus() != want {
			t.Fatalf("health: got %v, want %v", response.GetStatus(), want)
		}
	}
	told(healthv1.HealthCheckResponse_SERVING)

	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	_, err = client.Lock(ctx, &pylokv1.LockRequest{Name: "while/full"})
	if s := status.Convert(err); s.Code() != codes.Unavailable {
		t.Errorf("Lock on a full disk: got %v, want code %v", s, codes.Unavailable)
	} else {
		says(t, s.Proto().String(), "STORE_READ_ONLY")
	}
	told(healthv1.HealthCheckResponse_NOT_SERVING)
	still, err := client.Status(ctx, &pylokv1.StatusRequest{Name: "before"})
	if err != nil || still.GetLock().GetToken() != held.GetLock().GetToken() {
		t.Errorf("Status on a full disk: got %v, %v, want %v", still.GetLock(), err, held.GetLock())
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Lock(ctx, &pylokv1.LockRequest{Name: "while/full"}); err != nil {
		t.Errorf("Lock when there is room again: %v", err)
	}
	told(healthv1.HealthCheckResponse_SERVING)
	p.stop(t)
}

// fill writes to a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
}
