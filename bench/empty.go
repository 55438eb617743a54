package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// childEnv makes a run of this program one of the servers instead: empty or etcd.
const childEnv = "PYLOK_BENCH_SERVER"

// runChild serves as childEnv says until the process is told to stop. Once it serves
// it prints its address on a line of its own.
func runChild(server, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch server {
	case "empty":
		return serveEmpty(ctx)
	case "etcd":
		return serveEtcd(ctx, dir)
	}
	return fmt.Errorf("%s is %q, which is no server", childEnv, server)
}

// startChild starts this program as a server and returns its address.
func startChild(ctx context.Context, server, dir string) (p *process, address string, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	p, err = startProcess(ctx, filepath.Join(dir, "log"), func(line string) bool {
		address = line
		return true
	}, []string{childEnv + "=" + server}, program, dir)
	return p, address, err
}

// The service that does nothing: what a call costs before anything is done for it.
const emptyMethod = "/pylok.bench.Empty/Call"

func serveEmpty(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "pylok.bench.Empty",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Call",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				request := new(emptypb.Empty)
				return new(emptypb.Empty), decode(request)
			},
		}},
	}, nil)
	context.AfterFunc(ctx, server.Stop)
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

// startEmpty starts the service that does nothing: the ceiling.
func startEmpty(ctx context.Context, _ *settings, dir string) (*contender, error) {
	server, address, err := startChild(ctx, "empty", dir)
	if err != nil {
		return nil, err
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &contender{
		server: server,
		target: emptyTarget{connection},
		about:  "a gRPC service whose one method does nothing, " + grpc.Version + "; a cycle is two calls, Status is one; all callers share one connection",
	}, nil
}

// emptyTarget has an empty call in place of every request.
type emptyTarget struct{ connection *grpc.ClientConn }

func (t emptyTarget) call(ctx context.Context) error {
	return t.connection.Invoke(ctx, emptyMethod, &emptypb.Empty{}, &emptypb.Empty{})
}

func (t emptyTarget) Callers(context.Context, int) error                { return nil }
func (t emptyTarget) Lock(ctx context.Context, _ int, _ string) error   { return t.call(ctx) }
func (t emptyTarget) Unlock(ctx context.Context, _ int, _ string) error { return t.call(ctx) }
func (t emptyTarget) Status(ctx context.Context, _ int, _ string) error { return t.call(ctx) }
func (t emptyTarget) Close() error                                      { return t.connection.Close() }

// Subscribe implements load.Target.
func (t emptyTarget) Subscribe(context.Context, int, string, func(), func(int)) error {
	return errors.ErrUnsupported
}
