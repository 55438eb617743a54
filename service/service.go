// Package service is the gRPC edge of pylok: it turns messages into requests of a
// manager.Manager, and what the Manager answers into messages and statuses. It decides
// nothing about locks.
package service

import (
	"context"
	"hash/maphash"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/manager"
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
}

// Service implements pylok.v1.LockService on a Manager. Its errors carry their gRPC
// status; what a status must not tell is for the log of NewServer.
type Service struct {
	pylokv1.UnimplementedLockServiceServer

	manager   *manager.Manager
	config    Config
	directory string // Root with a separator at its end, or empty
	started   time.Time

	changes       recent[lock.Event, *pylokv1.WatchResponse]
	documents     recent[lock.Data, *structpb.Struct]
	confirmWithin time.Duration
	seed          maphash.Seed // of the documents' hashes
}

var _ pylokv1.LockServiceServer = (*Service)(nil)

// New returns the service on a manager, which stays the caller's to close.
func New(manager *manager.Manager, config Config) *Service {
	s := &Service{manager: manager, config: config, started: time.Now(), seed: maphash.MakeSeed(), confirmWithin: confirmWithin}
	if config.Root != "" {
		const separator = string(filepath.Separator)
		s.directory = strings.TrimSuffix(filepath.Clean(config.Root), separator) + separator
	}
	return s
}

// Lock implements pylokv1.LockServiceServer.
func (s *Service) Lock(ctx context.Context, request *pylokv1.LockRequest) (_ *pylokv1.LockResponse, err error) {
	defer s.toStatus(&err, request)
	wanted, err := lockRequest(request)
	if err != nil {
		return nil, err
	}
	// Who waits keeps what there is to wait with, and not the message's own copy of it,
	// which may be many times as large.
	request.Data = nil
	request.ProtoReflect().SetUnknown(nil)
	wanted.Confirm = s.confirm
	grant, err := s.manager.Lock(ctx, lock.Caller{}, wanted)
	if err != nil {
		return nil, err
	}
	return &pylokv1.LockResponse{
		Lock:   s.lockMessage(grant.Lock),
		Queued: durationMessage(grant.Queued),
	}, nil
}

// Unlock implements pylokv1.LockServiceServer.
func (s *Service) Unlock(ctx context.Context, request *pylokv1.UnlockRequest) (_ *pylokv1.UnlockResponse, err error) {
	defer s.toStatus(&err, request)
	wanted, err := unlockRequest(request)
	if err != nil {
		return nil, err
	}
	release, err := s.manager.Unlock(ctx, lock.Caller{}, wanted)
	if err != nil {
		return nil, err
	}
	response := &pylokv1.UnlockResponse{
		Lock:     s.lockMessage(release.Lock),
		Revision: uint64(release.Revision),
	}
	if release.Next.Held() {
		response.Next = s.lockMessage(release.Next)
	}
	return response, nil
}

// Renew implements pylokv1.LockServiceServer.
func (s *Service) Renew(ctx context.Context, request *pylokv1.RenewRequest) (_ *pylokv1.RenewResponse, err error) {
	defer s.toStatus(&err, request)
	wanted, err := renewRequest(request)
	if err != nil {
		return nil, err
	}
	l, err := s.manager.Renew(ctx, lock.Caller{}, wanted)
	if err != nil {
		return nil, err
	}
	return &pylokv1.RenewResponse{Lock: s.lockMessage(l)}, nil
}

// Status implements pylokv1.LockServiceServer.
func (s *Service) Status(ctx context.Context, request *pylokv1.StatusRequest) (_ *pylokv1.StatusResponse, err error) {
	defer s.toStatus(&err, request)
	name, err := lock.ParseName(request.GetName())
	if err != nil {
		return nil, err
	}
	l, err := s.manager.Status(ctx, lock.Caller{}, name)
	if err != nil {
		return nil, err
	}
	return &pylokv1.StatusResponse{Lock: s.lockMessage(l)}, nil
}

// List implements pylokv1.LockServiceServer.
func (s *Service) List(ctx context.Context, request *pylokv1.ListRequest) (_ *pylokv1.ListResponse, err error) {
	defer s.toStatus(&err, request)
	pattern, err := lock.ParsePattern(request.GetPattern())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	sequence := listSequence(pattern)
	after, err := sequence.name(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	locks, revision, more, err := s.manager.List(ctx, lock.Caller{}, pattern, after, size)
	if err != nil {
		return nil, err
	}
	response := &pylokv1.ListResponse{Revision: uint64(revision)}
	room := pageBytes
	for i, l := range locks {
		message := s.lockMessage(l)
		response.Locks = append(response.Locks, message)
		after = l.Name
		if room -= proto.Size(message); room <= 0 && i < len(locks)-1 {
			more = true
			break
		}
	}
	if more {
		response.NextPageToken = sequence.afterName(after)
	}
	return response, nil
}

// Watch implements pylokv1.LockServiceServer. Send blocks when the client does not
// read, which keeps this stream alone: the Manager's watch remembers nothing but the
// revision that it has come to.
func (s *Service) Watch(request *pylokv1.WatchRequest, stream pylokv1.LockService_WatchServer) (err error) {
	pattern, err := lock.ParsePattern(request.GetPattern())
	if err != nil {
		return s.statusError(err, request)
	}
	for event, err := range s.manager.Watch(stream.Context(), lock.Caller{}, pattern, lock.Revision(request.GetAfterRevision())) {
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

// History implements pylokv1.LockServiceServer.
func (s *Service) History(ctx context.Context, request *pylokv1.HistoryRequest) (_ *pylokv1.HistoryResponse, err error) {
	defer s.toStatus(&err, request)
	query, err := historyQuery(request)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	sequence := historySequence(query)
	from, err := sequence.revision(request.GetPageToken())
	if err != nil {
		return nil, err
	}
	page, err := s.manager.History(ctx, lock.Caller{}, query, from, size)
	if err != nil {
		return nil, err
	}
	response := &pylokv1.HistoryResponse{}
	room := pageBytes
	for i, event := range page.Events {
		message := s.eventMessage(event)
		response.Events = append(response.Events, message)
		if room -= proto.Size(message); room <= 0 && i < len(page.Events)-1 {
			page.Next = event.Revision
			break
		}
	}
	if page.Next != 0 {
		response.NextPageToken = sequence.afterRevision(page.Next)
	}
	return response, nil
}

// Info implements pylokv1.LockServiceServer.
func (s *Service) Info(ctx context.Context, request *pylokv1.InfoRequest) (_ *pylokv1.InfoResponse, err error) {
	defer s.toStatus(&err, request)
	revision, err := s.manager.Revision(ctx)
	if err != nil {
		return nil, err
	}
	return &pylokv1.InfoResponse{
		Version:   s.config.Version,
		Root:      s.config.Root,
		Store:     s.config.Store,
		Revision:  uint64(revision),
		StartTime: timestamppb.New(s.started.UTC().Truncate(time.Millisecond)),
	}, nil
}
