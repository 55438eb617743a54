package service

import (
	"context"

	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// listing is a call of List.
type listing struct {
	pattern  lock.Pattern
	after    lock.Name
	size     int
	sequence sequence
}

// listPage is what is found.
type listPage struct {
	listing
	locks    []lock.Lock
	revision lock.Revision
	more     bool
}

func (s *Service) listRequest(message *pylokv1.ListRequest) (l listing, err error) {
	if l.pattern, err = lock.ParsePattern(message.GetPattern()); err != nil {
		return l, err
	}
	if l.size, err = pageSize(message.GetPageSize()); err != nil {
		return l, err
	}
	l.sequence = listSequence(l.pattern)
	l.after, err = l.sequence.name(message.GetPageToken())
	return l, err
}

// askList asks for a listing.
func askList(locks lock.Locks, ctx context.Context, caller lock.Caller, l listing) (page listPage, err error) {
	page.listing = l
	page.locks, page.revision, page.more, err = locks.List(ctx, caller, l.pattern, l.after, l.size)
	return page, err
}

func (s *Service) listResponse(page listPage) *pylokv1.ListResponse {
	response := &pylokv1.ListResponse{Revision: uint64(page.revision)}
	room := pageBytes
	for i, l := range page.locks {
		message := s.lockMessage(l)
		response.Locks = append(response.Locks, message)
		page.after = l.Name
		if room -= proto.Size(message); room <= 0 && i < len(page.locks)-1 {
			page.more = true
			break
		}
	}
	if page.more {
		response.NextPageToken = page.sequence.afterName(page.after)
	}
	return response
}

// past is a call of History.
type past struct {
	query    lock.HistoryQuery
	from     lock.Revision
	size     int
	sequence sequence
}

// pastPage is what is found.
type pastPage struct {
	past
	lock.HistoryPage
}

func (s *Service) historyRequest(message *pylokv1.HistoryRequest) (p past, err error) {
	if p.query, err = historyQuery(message); err != nil {
		return p, err
	}
	if p.size, err = pageSize(message.GetPageSize()); err != nil {
		return p, err
	}
	p.sequence = historySequence(p.query)
	p.from, err = p.sequence.revision(message.GetPageToken())
	return p, err
}

// askHistory asks for a page of the past.
func askHistory(locks lock.Locks, ctx context.Context, caller lock.Caller, p past) (page pastPage, err error) {
	page.past = p
	page.HistoryPage, err = locks.History(ctx, caller, p.query, p.from, p.size)
	return page, err
}

func (s *Service) historyResponse(page pastPage) *pylokv1.HistoryResponse {
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
		response.NextPageToken = page.sequence.afterRevision(page.Next)
	}
	return response
}
