package service

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// pageBytes ends a page early: gRPC clients take 4 MiB by default, and a
	// lock's data a good 200 KiB.
	pageBytes = 2 << 20
)

// pageSize returns how many entries a page may have.
func pageSize(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, lock.Invalid("page_size", fmt.Sprintf("%d is negative; give 1 to %d, or 0 for %d", asked, maxPageSize, defaultPageSize))
	case asked == 0:
		return defaultPageSize, nil
	}
	return min(int(asked), maxPageSize), nil
}

// fill returns the messages of what is found for a page: of all, or of the first that fill
// pageBytes.
func fill[Found any, Message proto.Message](found []Found, message func(Found) Message) (page []Message) {
	for room := pageBytes; room > 0 && len(page) < len(found); {
		m := message(found[len(page)])
		page = append(page, m)
		room -= proto.Size(m)
	}
	return page
}

// listCall is a call of List.
type listCall struct {
	pattern  lock.Pattern
	after    lock.Name
	size     int
	sequence sequence
}

// listPage is what is found.
type listPage struct {
	listCall
	locks    []lock.Lock
	revision lock.Revision
	more     bool
}

func (s *Service) listRequest(message *pylokv1.ListRequest) (l listCall, err error) {
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

// askList asks for a page of locks.
func askList(locks lock.Locks, ctx context.Context, caller lock.Caller, l listCall) (page listPage, err error) {
	page.listCall = l
	page.locks, page.revision, page.more, err = locks.List(ctx, caller, l.pattern, l.after, l.size)
	return page, err
}

func (s *Service) listResponse(page listPage) *pylokv1.ListResponse {
	response := &pylokv1.ListResponse{Locks: fill(page.locks, s.lockMessage), Revision: uint64(page.revision)}
	if n := len(response.Locks); n > 0 && (page.more || n < len(page.locks)) {
		response.NextPageToken = page.sequence.afterName(page.locks[n-1].Name)
	}
	return response
}

// historyCall is a call of History.
type historyCall struct {
	query    lock.HistoryQuery
	from     lock.Revision
	size     int
	sequence sequence
}

// historyPage is what is found.
type historyPage struct {
	historyCall
	lock.HistoryPage
}

func (s *Service) historyRequest(message *pylokv1.HistoryRequest) (h historyCall, err error) {
	if h.query, err = historyQuery(message); err != nil {
		return h, err
	}
	if h.size, err = pageSize(message.GetPageSize()); err != nil {
		return h, err
	}
	h.sequence = historySequence(h.query)
	h.from, err = h.sequence.revision(message.GetPageToken())
	return h, err
}

// askHistory asks for a page of events.
func askHistory(locks lock.Locks, ctx context.Context, caller lock.Caller, h historyCall) (page historyPage, err error) {
	page.historyCall = h
	page.HistoryPage, err = locks.History(ctx, caller, h.query, h.from, h.size)
	return page, err
}

func (s *Service) historyResponse(page historyPage) *pylokv1.HistoryResponse {
	response := &pylokv1.HistoryResponse{Events: fill(page.Events, s.eventMessage)}
	if n := len(response.Events); n < len(page.Events) {
		page.Next = page.Events[n-1].Revision
	}
	if page.Next != 0 {
		response.NextPageToken = page.sequence.afterRevision(page.Next)
	}
	return response
}
