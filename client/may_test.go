package client_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pylok/pylok/client"
	"github.com/pylok/pylok/lock"
)

// TestMay: a question is sent again to a server that is away, and a verb that is none is
// not sent.
func TestMay(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c, _ := b.client()
		if _, err := c.Status(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		away := true
		b.beforeCalls(func(method string) error {
			if method == "May" && away {
				away = false
				return status.Error(codes.Unavailable, "away")
			}
			return nil
		})
		for _, verb := range []client.Verb{client.View, client.Take, client.Break, client.Freeze} {
			got, err := c.May(t.Context(), verb, "a/b", "")
			if err != nil || !got.Allowed || got.Why == "" {
				t.Errorf("%s: got %+v, %v; want all allowed, for there are no rules", verb, got, err)
			}
		}
		if got, err := c.May(t.Context(), client.Admin, "", "token:ci"); err != nil || !got.Allowed {
			t.Errorf("admin: got %+v, %v", got, err)
		}
		sent := len(b.callsOf("May"))
		if sent != 6 {
			t.Errorf("got %d calls, want 5 and one again", sent)
		}
		for _, verb := range []client.Verb{"", "look", "VIEW", "unspecified"} {
			if _, err := c.May(t.Context(), verb, "a/b", ""); !errors.Is(err, lock.ErrInvalidArgument) {
				t.Errorf("%q: got %v, want INVALID_ARGUMENT", verb, err)
			}
		}
		if _, err := c.May(t.Context(), client.View, "../a", ""); !errors.Is(err, lock.ErrInvalidName) {
			t.Errorf("got %v, want INVALID_NAME", err)
		}
		if n := len(b.callsOf("May")); n != sent+1 {
			t.Errorf("got %d calls, want %d", n, sent+1)
		}
	})
}
