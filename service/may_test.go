package service

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/pylok/pylok/access"
	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// TestMay: the question reaches the rules, and their answer the caller; without rules all
// is allowed.
func TestMay(t *testing.T) {
	ctx := t.Context()
	r := serve(t, setup{})
	answer, err := r.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_BREAK, Name: "a/b"})
	if err != nil || !answer.GetAllowed() || answer.GetWhy() == "" {
		t.Errorf("without rules: got %v, %v", answer, err)
	}
	for _, test := range []struct {
		request *pylokv1.MayRequest
		reason  lock.Reason
		field   string
	}{
		{&pylokv1.MayRequest{Name: "a"}, lock.ErrInvalidArgument, "verb"},
		{&pylokv1.MayRequest{Verb: 99, Name: "a"}, lock.ErrInvalidArgument, "verb"},
		{&pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW}, lock.ErrInvalidName, "name"},
		{&pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: "../a"}, lock.ErrInvalidName, "name"},
		{&pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_ADMIN, Name: "a"}, lock.ErrInvalidArgument, "name"},
	} {
		_, err := r.May(ctx, test.request)
		if got := refused(t, err, codes.InvalidArgument, test.reason); got.violation.GetField() != test.field {
			t.Errorf("%v: got %v, want the field %s", test.request, err, test.field)
		}
	}
	if _, err := r.May(ctx, &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_ADMIN}); err != nil {
		t.Errorf("admin: got %v", err)
	}

	var asked access.Question
	refuse := false
	s := New(nil, Config{May: func(_ context.Context, _ lock.Caller, q access.Question) (access.Answer, error) {
		asked = q
		if refuse {
			return access.Answer{}, &lock.Error{Reason: lock.ErrPermissionDenied, Message: "no"}
		}
		return access.Answer{Caller: "token:ci", Groups: []string{"x", "y"}, Why: "so"}, nil
	}})
	request := &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_FREEZE, Name: "a/b", As: "token:ci"}
	answer, err = s.May(ctx, request)
	if want := (&pylokv1.MayResponse{Caller: "token:ci", Groups: []string{"x", "y"}, Why: "so"}); err != nil || !proto.Equal(answer, want) {
		t.Errorf("got %v, %v; want %v", answer, err, want)
	}
	if want := (access.Question{Verb: access.Freeze, Name: lock.MustParseName("a/b"), As: "token:ci"}); asked != want {
		t.Errorf("the rules were asked %+v, want %+v", asked, want)
	}
	refuse = true
	_, err = s.May(ctx, request)
	refused(t, err, codes.PermissionDenied, lock.ErrPermissionDenied)
}

// TestAdmit: requests that the locks are not asked about are refused beyond the limits too.
func TestAdmit(t *testing.T) {
	full := &lock.Error{Reason: lock.ErrRateLimited, Message: "too often"}
	s := New(nil, Config{Admit: func(lock.Caller) error { return full }})
	_, err := s.Info(t.Context(), &pylokv1.InfoRequest{})
	refused(t, err, codes.ResourceExhausted, lock.ErrRateLimited)
	_, err = s.May(t.Context(), &pylokv1.MayRequest{Verb: pylokv1.Verb_VERB_VIEW, Name: "x"})
	refused(t, err, codes.ResourceExhausted, lock.ErrRateLimited)
}
