// Package service is the gRPC door of pylok: it turns messages into requests of lock.Locks,
// and what they answer into messages and statuses. It decides nothing about locks.
package service

import (
	"context"
	"hash/maphash"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pylok/pylok/access"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// Config describes the server to those who ask.
type Config struct {
	// Root is the absolute path of the directory with the lock files; empty
	// when the store keeps no files.
	Root string
	// Store is a word for the store, such as file or memory.
	Store string
	// Version is that of the server program.
	Version string
	// Admit returns why a caller may not make a request that the locks are not asked
	// about, Info or May. Default: everybody may.
	Admit func(lock.Caller) error
	// May answers whether the rules allow something. Nil: there are none, and all is
	// allowed.
	May func(context.Context, lock.Caller, access.Question) (access.Answer, error)
}

// Service implements pylok.v1.LockService. Its errors carry their gRPC
// status; what a status must not tell is for the log of NewServer.
type Service struct {
	pylokv1.UnimplementedLockServiceServer

	locks     lock.Locks
	config    Config
	directory string // Root with a separator at its end, or empty
	started   time.Time

	changes       recent[lock.Event, *pylokv1.WatchResponse]
	documents     recent[lock.Data, *structpb.Struct]
	confirmWithin time.Duration
	seed          maphash.Seed // of the documents' hashes
}

var _ pylokv1.LockServiceServer = (*Service)(nil)

// New returns the service on locks.
func New(locks lock.Locks, config Config) *Service {
	s := &Service{locks: locks, config: config, started: time.Now(), seed: maphash.MakeSeed(), confirmWithin: confirmWithin}
	if config.Root != "" {
		const separator = string(filepath.Separator)
		s.directory = strings.TrimSuffix(filepath.Clean(config.Root), separator) + separator
	}
	return s
}

// handle answers a call: it decodes the message, asks the Locks on behalf of the caller,
// and encodes the answer. Whatever goes wrong becomes a status here.
func handle[Message, Request, Answer, Response any](
	ctx context.Context, s *Service, message Message,
	decode func(*Service, Message) (Request, error),
	ask func(lock.Locks, context.Context, lock.Caller, Request) (Answer, error),
	encode func(*Service, Answer) Response,
) (response Response, err error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return response, s.statusError(err, message)
	}
	request, err := decode(s, message)
	if err != nil {
		return response, s.statusError(err, message)
	}
	answer, err := ask(s.locks, ctx, caller, request)
	if err != nil {
		return response, s.statusError(err, message)
	}
	return encode(s, answer), nil
}

// Lock implements pylokv1.LockServiceServer.
func (s *Service) Lock(ctx context.Context, message *pylokv1.LockRequest) (*pylokv1.LockResponse, error) {
	return handle(ctx, s, message, (*Service).lockRequest, lock.Locks.Lock, (*Service).lockResponse)
}

// Unlock implements pylokv1.LockServiceServer.
func (s *Service) Unlock(ctx context.Context, message *pylokv1.UnlockRequest) (*pylokv1.UnlockResponse, error) {
	return handle(ctx, s, message, (*Service).unlockRequest, lock.Locks.Unlock, (*Service).unlockResponse)
}

// Renew implements pylokv1.LockServiceServer.
func (s *Service) Renew(ctx context.Context, message *pylokv1.RenewRequest) (*pylokv1.RenewResponse, error) {
	return handle(ctx, s, message, (*Service).renewRequest, lock.Locks.Renew, (*Service).renewResponse)
}

// LockSet implements pylokv1.LockServiceServer.
func (s *Service) LockSet(ctx context.Context, message *pylokv1.LockSetRequest) (*pylokv1.LockSetResponse, error) {
	return handle(ctx, s, message, (*Service).lockSetRequest, lock.Locks.LockSet, (*Service).lockSetResponse)
}

// UnlockSet implements pylokv1.LockServiceServer.
func (s *Service) UnlockSet(ctx context.Context, message *pylokv1.UnlockSetRequest) (*pylokv1.UnlockSetResponse, error) {
	return handle(ctx, s, message, (*Service).unlockSetRequest, askUnlockSet, (*Service).unlockSetResponse)
}

// RenewSet implements pylokv1.LockServiceServer.
func (s *Service) RenewSet(ctx context.Context, message *pylokv1.RenewSetRequest) (*pylokv1.RenewSetResponse, error) {
	return handle(ctx, s, message, (*Service).renewSetRequest, askRenewSet, (*Service).renewSetResponse)
}

// HandOver implements pylokv1.LockServiceServer.
func (s *Service) HandOver(ctx context.Context, message *pylokv1.HandOverRequest) (*pylokv1.HandOverResponse, error) {
	return handle(ctx, s, message, (*Service).handOverRequest, lock.Locks.HandOver, (*Service).handOverResponse)
}

// Ask implements pylokv1.LockServiceServer.
func (s *Service) Ask(ctx context.Context, message *pylokv1.AskRequest) (*pylokv1.AskResponse, error) {
	return handle(ctx, s, message, (*Service).askRequest, lock.Locks.Ask, (*Service).askResponse)
}

// Dismiss implements pylokv1.LockServiceServer.
func (s *Service) Dismiss(ctx context.Context, message *pylokv1.DismissRequest) (*pylokv1.DismissResponse, error) {
	return handle(ctx, s, message, (*Service).dismissRequest, lock.Locks.Dismiss, (*Service).dismissResponse)
}

// Status implements pylokv1.LockServiceServer.
func (s *Service) Status(ctx context.Context, message *pylokv1.StatusRequest) (*pylokv1.StatusResponse, error) {
	return handle(ctx, s, message, (*Service).statusRequest, lock.Locks.Status, (*Service).statusResponse)
}

// List implements pylokv1.LockServiceServer.
func (s *Service) List(ctx context.Context, message *pylokv1.ListRequest) (*pylokv1.ListResponse, error) {
	return handle(ctx, s, message, (*Service).listRequest, askList, (*Service).listResponse)
}

// History implements pylokv1.LockServiceServer.
func (s *Service) History(ctx context.Context, message *pylokv1.HistoryRequest) (*pylokv1.HistoryResponse, error) {
	return handle(ctx, s, message, (*Service).historyRequest, askHistory, (*Service).historyResponse)
}

// Watch implements pylokv1.LockServiceServer. Send blocks when the client does not
// read, which keeps this stream alone: a watch remembers nothing but the
// revision that it has come to.
func (s *Service) Watch(request *pylokv1.WatchRequest, stream pylokv1.LockService_WatchServer) error {
	caller, err := callerOf(stream.Context())
	if err != nil {
		return s.statusError(err, request)
	}
	pattern, err := lock.ParsePattern(request.GetPattern())
	if err != nil {
		return s.statusError(err, request)
	}
	watch := lock.WatchRequest{
		Pattern: pattern.WithSlots(), // now: what a guard narrows is no single name any more
		After:   lock.Revision(request.GetAfterRevision()),
		Token:   lock.Token(request.GetToken()),
	}
	for event, err := range s.locks.Watch(stream.Context(), caller, watch) {
		if err != nil {
			return s.statusError(err, request)
		}
		if err := stream.Send(s.watchResponse(event)); err != nil {
			return err // gRPC's own; the stream is gone
		}
	}
	return nil
}

// watchResponse returns the response for an event: of a change the same one for all who
// watch, so that codec encodes it once.
func (s *Service) watchResponse(e lock.Event) *pylokv1.WatchResponse {
	response := func() (*pylokv1.WatchResponse, bool) {
		return &pylokv1.WatchResponse{Event: s.eventMessage(e)}, e.Lock.Data.Size() <= maxRecentBytes
	}
	if e.Cause == 0 { // not a change, but the present state or a mark in the stream
		message, _ := response()
		return message
	}
	return s.changes.get(e, uint64(e.Revision), response)
}

// admit asks whether a caller may make a request that the Locks are not asked about.
func (s *Service) admit(caller lock.Caller) error {
	if s.config.Admit == nil {
		return nil
	}
	return s.config.Admit(caller)
}

// features are what InfoResponse.features says.
var features = []string{"ask", "dismiss", "hand-over", "keep", "set", "shared", "tree"}

// Info implements pylokv1.LockServiceServer.
func (s *Service) Info(ctx context.Context, message *pylokv1.InfoRequest) (*pylokv1.InfoResponse, error) {
	caller, err := callerOf(ctx)
	if err == nil {
		err = s.admit(caller)
	}
	if err != nil {
		return nil, s.statusError(err, message)
	}
	revision, err := s.locks.Revision(ctx)
	if err != nil {
		return nil, s.statusError(err, message)
	}
	return &pylokv1.InfoResponse{
		Version:   s.config.Version,
		Root:      s.config.Root,
		Store:     s.config.Store,
		Revision:  uint64(revision),
		Caller:    caller.Name,
		Proof:     caller.Proof,
		Groups:    caller.Groups,
		Features:  features,
		StartTime: timestamppb.New(s.started.UTC().Truncate(time.Millisecond)),
	}, nil
}
