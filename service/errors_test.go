package service

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
	"github.com/pylok/pylok/manager"
)

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 20*time.Second)
}

func refusedCode(t testing.TB, err error, code codes.Code) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Errorf("got %v, want code %v", err, code)
	}
}

// reasonsInSource returns the constants of type Reason in package lock.
func reasonsInSource(t *testing.T) map[string]lock.Reason {
	t.Helper()
	reasons := map[string]lock.Reason{}
	files, err := os.ReadDir("../lock")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), "../lock/"+file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" && len(spec.Values) == 1 {
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				reasons[spec.Names[0].Name] = lock.Reason(text)
			}
			return true
		})
	}
	return reasons
}

// TestReasons holds the table to design.md, section 3, and to the reasons that
// there are.
func TestReasons(t *testing.T) {
	want := map[lock.Reason]codes.Code{
		"LOCK_HELD":         codes.FailedPrecondition,
		"NOT_HOLDER":        codes.FailedPrecondition,
		"NOT_LOCKED":        codes.NotFound,
		"INVALID_NAME":      codes.InvalidArgument,
		"INVALID_ARGUMENT":  codes.InvalidArgument,
		"DATA_TOO_LARGE":    codes.ResourceExhausted,
		"TOO_MANY_WAITERS":  codes.ResourceExhausted,
		"TOO_MANY_LOCKS":    codes.ResourceExhausted,
		"LOCK_FILE_FAILED":  codes.FailedPrecondition,
		"STORE_READ_ONLY":   codes.Unavailable,
		"OUTCOME_UNKNOWN":   codes.Unavailable,
		"SHUTTING_DOWN":     codes.Unavailable,
		"UNAUTHENTICATED":   codes.Unauthenticated,
		"PERMISSION_DENIED": codes.PermissionDenied,
		"RATE_LIMITED":      codes.ResourceExhausted,
		"TOO_MANY_WATCHES":  codes.ResourceExhausted,
	}
	reasons := reasonsInSource(t)
	if len(reasons) != len(want) {
		t.Errorf("package lock has %d reasons, this test knows %d", len(reasons), len(want))
	}
	s := New(nil, Config{})
	for constant, reason := range reasons {
		code, ok := want[reason]
		if !ok {
			t.Errorf("lock.%s: give it a row in refusals and in this test", constant)
			continue
		}
		hold := lock.Lock{Name: lock.MustParseName("a/b"), Token: 7, Holder: "alice"}
		for _, err := range []error{
			&lock.Error{Reason: reason, Message: "a sentence", Field: "name", Lock: &hold},
			fmt.Errorf("wrapped: %w", &lock.Error{Reason: reason, Message: "a sentence", Field: "name", Lock: &hold, Err: context.Canceled}),
			errors.Join(errDisk, &lock.Error{Reason: reason, Message: "a sentence", Field: "name", Lock: &hold}),
		} {
			d := refused(t, s.statusError(err, &pylokv1.StatusRequest{Name: "x"}), code, reason)
			if got := status.Convert(s.statusError(err, nil)).Message(); got != "a sentence" {
				t.Errorf("%s: got message %q, want the sentence alone", reason, got)
			}
			if m := d.info.GetMetadata(); m["name"] != "a/b" || m["holder"] != "alice" || m["token"] != "7" {
				t.Errorf("%s: got metadata %v", reason, m)
			}
			if d.lock.GetToken() != 7 {
				t.Errorf("%s: got lock %v, want the hold", reason, d.lock)
			}
			if hasViolation, wanted := d.violation != nil, code == codes.InvalidArgument || reason == lock.ErrDataTooLarge; hasViolation != wanted {
				t.Errorf("%s: got field violation %v", reason, d.violation)
			}
		}
		bare := s.statusError(fmt.Errorf("secret: %w", reason), &pylokv1.StatusRequest{Name: "x/y"})
		d := refused(t, bare, code, reason)
		if got := status.Convert(bare).Message(); got == "" || strings.Contains(got, "secret") {
			t.Errorf("%s alone: got message %q, want a sentence of the table", reason, got)
		}
		if got := d.info.GetMetadata()["name"]; reason != lock.ErrInvalidName && got != "x/y" {
			t.Errorf("%s alone: got the name %q, want the request's", reason, got)
		}
	}
}

func TestOtherErrors(t *testing.T) {
	s := New(nil, Config{})
	for _, test := range []struct {
		err  error
		want codes.Code
	}{
		{fmt.Errorf("x: %w", context.Canceled), codes.Canceled},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{errDisk, codes.Internal},
		{lock.ErrConflict, codes.Internal},
		{lock.ErrCompacted, codes.Internal},
		{status.Error(codes.NotFound, "of some other service"), codes.Internal},
		{&lock.Error{Reason: "NEW_REASON", Message: "no row"}, codes.Internal},
		{lock.Reason("NEW_REASON"), codes.Internal},
	} {
		err := s.statusError(test.err, nil)
		refusedCode(t, err, test.want)
		if !errors.Is(err, test.err) {
			t.Errorf("%v: the cause is lost to the log", test.err)
		}
		if got := status.Convert(err); test.want == codes.Internal && (got.Message() != internalText || len(got.Details()) != 0) {
			t.Errorf("%v: got %v, want the constant text alone", test.err, got)
		}
	}
}

// TestRefusals sees every reason come over the wire.
func TestRefusals(t *testing.T) {
	var fail error
	store := &fakeStore{
		Store:  memstore.New(memstore.Config{MaxLocks: 1}),
		commit: func([]lock.Change) error { return fail },
	}
	r := serve(t, setup{store: store, manager: manager.Config{MaxWaiters: 1}})
	ctx, cancel := contextOf(t)
	defer cancel()
	hold := r.lock(t, &pylokv1.LockRequest{
		Name: "lb/web-1", Holder: "alice", Data: document(t, `{"msg": "canary"}`),
		Expiry: &pylokv1.LockRequest_Ttl{Ttl: durationpb.New(time.Hour)},
	})

	carriesHold := func(t *testing.T, d details) {
		t.Helper()
		got := proto.Clone(d.lock).(*pylokv1.Lock)
		got.ExpireTime = hold.GetExpireTime() // a lease's is reckoned anew each time
		if !proto.Equal(got, hold) {
			t.Errorf("got lock %v, want %v", d.lock, hold)
		}
		if m := d.info.GetMetadata(); m["name"] != "lb/web-1" || m["holder"] != "alice" || m["token"] != strconv.FormatUint(hold.GetToken(), 10) {
			t.Errorf("got metadata %v", m)
		}
	}
	t.Run("LOCK_HELD", func(t *testing.T) {
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "lb/web-1", Holder: "bob"})
		carriesHold(t, refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld))
		if text := status.Convert(err).Message(); !strings.Contains(text, "alice") || !strings.Contains(text, "canary") {
			t.Errorf("got message %q, want it to name the holder and why", text)
		}
	})
	t.Run("LOCK_HELD after a wait", func(t *testing.T) {
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "lb/web-1", Wait: durationpb.New(time.Millisecond)})
		carriesHold(t, refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld))
		if text := status.Convert(err).Message(); !strings.Contains(text, "after waiting") {
			t.Errorf("got message %q, want how long it waited", text)
		}
	})
	t.Run("NOT_HOLDER by holder", func(t *testing.T) {
		_, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "lb/web-1", Holder: "bob"})
		carriesHold(t, refused(t, err, codes.FailedPrecondition, lock.ErrNotHolder))
	})
	t.Run("NOT_HOLDER by token", func(t *testing.T) {
		_, err := r.Renew(ctx, &pylokv1.RenewRequest{Name: "lb/web-1", Token: 99})
		carriesHold(t, refused(t, err, codes.FailedPrecondition, lock.ErrNotHolder))
	})
	t.Run("NOT_LOCKED", func(t *testing.T) {
		for _, err := range []error{
			second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "lb/free"})),
			second(r.Renew(ctx, &pylokv1.RenewRequest{Name: "lb/free", Token: 1})),
		} {
			d := refused(t, err, codes.NotFound, lock.ErrNotLocked)
			if d.lock != nil || d.info.GetMetadata()["name"] != "lb/free" {
				t.Errorf("got lock %v and metadata %v, want none and the name", d.lock, d.info.GetMetadata())
			}
		}
	})
	t.Run("DATA_TOO_LARGE", func(t *testing.T) {
		_, err := r.Renew(ctx, &pylokv1.RenewRequest{Name: "lb/web-1", Token: hold.GetToken(),
			Data: document(t, fmt.Sprintf(`{"x": %q}`, strings.Repeat("x", 70<<10)))})
		refused(t, err, codes.ResourceExhausted, lock.ErrDataTooLarge)
	})
	t.Run("TOO_MANY_LOCKS", func(t *testing.T) {
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "lb/web-2"})
		refused(t, err, codes.ResourceExhausted, lock.ErrTooManyLocks)
	})
	t.Run("TOO_MANY_WAITERS", func(t *testing.T) {
		waiting, leave := contextOf(t)
		ended := make(chan error, 1)
		go func() {
			_, err := r.Lock(waiting, &pylokv1.LockRequest{Name: "lb/web-1", Wait: durationpb.New(time.Minute)})
			ended <- err
		}()
		r.waiters(t, "lb/web-1", 1)
		_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "lb/web-1", Wait: durationpb.New(time.Minute)})
		refused(t, err, codes.ResourceExhausted, lock.ErrTooManyWaiters)
		leave()
		refusedCode(t, <-ended, codes.Canceled)
		r.waiters(t, "lb/web-1", 0)
	})
	for _, reason := range []lock.Reason{lock.ErrReadOnly, lock.ErrOutcomeUnknown} {
		t.Run(string(reason), func(t *testing.T) {
			fail = &lock.Error{Reason: reason, Message: "the disk is full", Err: errDisk}
			_, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "lb/web-1", Token: hold.GetToken()})
			refused(t, err, codes.Unavailable, reason)
			if text := status.Convert(err).Message(); text != "the disk is full" {
				t.Errorf("got message %q, want the domain's", text)
			}
			line := r.log.lines(t, 1, string(reason))[0]
			if line["level"] != "WARN" || line["error"] != errDisk.Error() {
				t.Errorf("the log: got %v, want a warning with the cause", line)
			}
		})
	}
	t.Run("INTERNAL", func(t *testing.T) {
		fail = errDisk
		_, err := r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "lb/web-1", Token: hold.GetToken()})
		if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != internalText || len(s.Details()) != 0 {
			t.Errorf("got %v, want INTERNAL with the constant text alone", s)
		}
		lines := r.log.lines(t, 1, `"code":"Internal"`)
		if len(lines) != 1 || lines[0]["level"] != "ERROR" || lines[0]["error"] != errDisk.Error() {
			t.Errorf("the log: got %v, want one error with the cause", lines)
		}
	})
	fail = nil
	t.Run("SHUTTING_DOWN", func(t *testing.T) {
		stream := r.watch(t, &pylokv1.WatchRequest{})
		next(t, stream, 3)
		r.manager.Close()
		_, err := stream.Recv()
		refused(t, err, codes.Unavailable, lock.ErrShuttingDown)
		line := r.log.lines(t, 1, `"reason":"SHUTTING_DOWN"`)[0]
		if line["level"] != "INFO" {
			t.Errorf("the log: got %v, want no warning", line)
		}
	})
}

// second drops the first value.
func second[T any](_ T, err error) error { return err }

func TestDeadline(t *testing.T) {
	r := serve(t, setup{})
	r.lock(t, &pylokv1.LockRequest{Name: "a"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Wait: durationpb.New(time.Minute)})
	refusedCode(t, err, codes.DeadlineExceeded)
	r.waiters(t, "a", 0)
}

// TestLargeRefusal: what a lock holds must not make its refusal unreadable to a
// client that takes 8 KiB of trailers.
func TestLargeRefusal(t *testing.T) {
	r := serve(t, setup{})
	segment := strings.Repeat("s", 127)
	longest := strings.Join([]string{segment, segment, segment, segment}, "/")
	hold := r.lock(t, &pylokv1.LockRequest{
		Name:   longest,
		Holder: strings.Repeat("ä", 128),
		Data:   document(t, fmt.Sprintf(`{"msg": %q, "bulk": %q}`, strings.Repeat("m", 500), strings.Repeat("x", 50<<10))),
	})
	_, err := r.Lock(t.Context(), &pylokv1.LockRequest{Name: longest})
	d := refused(t, err, codes.FailedPrecondition, lock.ErrLockHeld)
	if d.lock.GetToken() != hold.GetToken() || d.lock.GetHolder() != hold.GetHolder() ||
		len(d.lock.GetData().GetFields()) != 1 || d.lock.GetData().GetFields()["msg"].GetStringValue() != strings.Repeat("m", 500) {
		t.Errorf("got lock %v, want the hold with msg alone of its data", d.lock)
	}
	s := status.Convert(err)
	message := len(s.Message()) + 2*strings.Count(s.Message(), "\xc3") + 2*strings.Count(s.Message(), "\xa4") // %C3%A4
	size := message + proto.Size(s.Proto())*4/3
	if size > 8<<10 {
		t.Errorf("the trailers take %d bytes, want at most 8 KiB", size)
	}
}

// TestTooLarge: data that no lock file can hold are DATA_TOO_LARGE, whatever their size,
// up to what is read at all; and change nothing.
func TestTooLarge(t *testing.T) {
	r := serve(t, setup{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	hold := r.lock(t, &pylokv1.LockRequest{Name: "held"})
	for _, size := range []int{300 << 10, 256<<10 - 40, 1<<20 - 100} {
		data := document(t, fmt.Sprintf(`{"x": %q}`, strings.Repeat("x", size)))
		for method, err := range map[string]error{
			"Lock":      second(r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Data: data, Holder: "alice"})),
			"Lock held": second(r.Lock(ctx, &pylokv1.LockRequest{Name: "held", Data: data, Overwrite: true})),
			"Renew":     second(r.Renew(ctx, &pylokv1.RenewRequest{Name: "held", Token: hold.GetToken(), Data: data})),
			"HandOver":  second(r.HandOver(ctx, &pylokv1.HandOverRequest{Name: "held", Token: hold.GetToken(), Holder: "bob", Data: data})),
			"Unlock":    second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "held", Data: data})),
			"LockSet":   second(r.LockSet(ctx, &pylokv1.LockSetRequest{Names: []string{"a", "b"}, Data: data})),
			"UnlockSet": second(r.UnlockSet(ctx, &pylokv1.UnlockSetRequest{Holds: []*pylokv1.HoldRef{{Name: "held", Token: hold.GetToken()}}, Data: data})),
		} {
			if strings.HasPrefix(method, "Unlock") && size < 256<<10 {
				continue // it writes no lock file
			}
			d := refused(t, err, codes.ResourceExhausted, lock.ErrDataTooLarge)
			if d.violation.GetField() != "data" || !strings.Contains(d.violation.GetDescription(), "65536") {
				t.Errorf("%s with %d bytes: got violation %v, want the field data and the limit", method, size, d.violation)
			}
		}
	}
	if _, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a b", Data: document(t, fmt.Sprintf(`{"x": %q}`, strings.Repeat("x", 300<<10)))}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad name with large data: got %v", err)
	}
	_, err := r.Lock(ctx, &pylokv1.LockRequest{Name: "a", Data: document(t, fmt.Sprintf(`{"x": %q}`, strings.Repeat("x", 1<<20)))})
	refusedCode(t, err, codes.ResourceExhausted)
	r.lock(t, &pylokv1.LockRequest{Name: "a"})
}

func TestBadInput(t *testing.T) {
	r := serve(t, setup{})
	held := r.lock(t, &pylokv1.LockRequest{Name: "held", Holder: "h"})
	ctx := t.Context()

	for _, name := range []string{
		"", "../x", "a/../b", ".", "..", "/etc/x", "a//b", "a/", ".pylok/x", "x.lock", "x.lock/y",
		strings.Repeat("n", 600), strings.Repeat("a/", 16) + "a", "nul\x00", "sp ace", "back\\slash",
		"naïve", "\u202etfel", "a\n", "-flag", "a/-b", "*", "a*",
	} {
		for rpc, err := range map[string]error{
			"Lock":   second(r.Lock(ctx, &pylokv1.LockRequest{Name: name})),
			"Unlock": second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: name})),
			"Renew":  second(r.Renew(ctx, &pylokv1.RenewRequest{Name: name, Token: 1})),
			"Status": second(r.Status(ctx, &pylokv1.StatusRequest{Name: name})),
		} {
			t.Run(fmt.Sprintf("%s name %.20q", rpc, name), func(t *testing.T) {
				d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidName)
				if d.violation.GetField() != "name" || d.violation.GetDescription() == "" {
					t.Errorf("got violation %v, want one of name that says which rule", d.violation)
				}
			})
		}
	}

	ttl := func(d *durationpb.Duration) *pylokv1.LockRequest {
		return &pylokv1.LockRequest{Name: "a", Expiry: &pylokv1.LockRequest_Ttl{Ttl: d}}
	}
	expire := func(ts *timestamppb.Timestamp) *pylokv1.LockRequest {
		return &pylokv1.LockRequest{Name: "a", Expiry: &pylokv1.LockRequest_ExpireTime{ExpireTime: ts}}
	}
	wait := func(d *durationpb.Duration) *pylokv1.LockRequest {
		return &pylokv1.LockRequest{Name: "a", Wait: d}
	}
	data := func(v *structpb.Value) *pylokv1.LockRequest {
		return &pylokv1.LockRequest{Name: "a", Data: &structpb.Struct{Fields: map[string]*structpb.Value{"x": v}}}
	}
	deep := structpb.NewStringValue("deep")
	for range 40 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	for _, test := range []struct {
		name, field string
		request     *pylokv1.LockRequest
	}{
		{"ttl 0", "ttl", ttl(&durationpb.Duration{})},
		{"ttl negative", "ttl", ttl(durationpb.New(-time.Second))},
		{"ttl too short", "ttl", ttl(durationpb.New(99 * time.Millisecond))},
		{"ttl too long", "ttl", ttl(durationpb.New(367 * 24 * time.Hour))},
		{"ttl beyond time.Duration", "ttl", ttl(&durationpb.Duration{Seconds: 300_000_000_000})},
		{"ttl beyond Duration", "ttl", ttl(&durationpb.Duration{Seconds: math.MaxInt64})},
		{"ttl of two signs", "ttl", ttl(&durationpb.Duration{Seconds: 1, Nanos: -1})},
		{"ttl of too many nanos", "ttl", ttl(&durationpb.Duration{Seconds: 1, Nanos: 1_000_000_000})},
		{"expire_time past", "expire_time", expire(timestamppb.New(time.Now().Add(-time.Second)))},
		{"expire_time of year 1", "expire_time", expire(timestamppb.New(time.Time{}))},
		{"expire_time of 1970", "expire_time", expire(&timestamppb.Timestamp{})},
		{"expire_time beyond Timestamp", "expire_time", expire(&timestamppb.Timestamp{Seconds: math.MaxInt64})},
		{"expire_time with negative nanos", "expire_time", expire(&timestamppb.Timestamp{Seconds: 4_000_000_000, Nanos: -1})},
		{"wait negative", "wait", wait(durationpb.New(-time.Nanosecond))},
		{"wait too long", "wait", wait(durationpb.New(25 * time.Hour))},
		{"wait beyond time.Duration", "wait", wait(&durationpb.Duration{Seconds: 300_000_000_000})},
		{"wait not valid", "wait", wait(&durationpb.Duration{Nanos: math.MinInt32})},
		{"NaN", "data", data(structpb.NewNumberValue(math.NaN()))},
		{"Inf", "data", data(structpb.NewNumberValue(math.Inf(-1)))},
		{"NaN in a list", "data", data(structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(math.NaN())}}))},
		{"a value of no kind", "data", data(&structpb.Value{})},
		{"data too deep", "data", data(deep)},
		{"holder too long", "holder", &pylokv1.LockRequest{Name: "a", Holder: strings.Repeat("h", 257)}},
		{"holder with a NUL", "holder", &pylokv1.LockRequest{Name: "a", Holder: "a\x00b"}},
		{"holder with a line end", "holder", &pylokv1.LockRequest{Name: "a", Holder: "a\nb"}},
		{"request_id too long", "request_id", &pylokv1.LockRequest{Name: "a", RequestId: strings.Repeat("i", 129)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.Lock(ctx, test.request)
			d := refused(t, err, codes.InvalidArgument, lock.ErrInvalidArgument)
			if d.violation.GetField() != test.field || d.violation.GetDescription() == "" || strings.HasPrefix(d.violation.GetDescription(), test.field) {
				t.Errorf("got violation %v, want one of %s, and in its description what is wrong with that", d.violation, test.field)
			}
			if d.info.GetMetadata()["name"] != "a" {
				t.Errorf("got metadata %v, want the name", d.info.GetMetadata())
			}
		})
	}

	for _, test := range []struct {
		name, field string
		err         error
	}{
		{"Renew without a token", "token", second(r.Renew(ctx, &pylokv1.RenewRequest{Name: "held"}))},
		{"Renew ttl 0", "ttl", second(r.Renew(ctx, &pylokv1.RenewRequest{Name: "held", Token: held.GetToken(), Expiry: &pylokv1.RenewRequest_Ttl{Ttl: &durationpb.Duration{}}}))},
		{"Renew NaN", "data", second(r.Renew(ctx, &pylokv1.RenewRequest{Name: "held", Token: held.GetToken(), Data: data(structpb.NewNumberValue(math.NaN())).GetData()}))},
		{"Unlock NaN", "data", second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "held", Holder: "h", Data: data(structpb.NewNumberValue(math.NaN())).GetData()}))},
		{"Unlock reason too long", "reason", second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "held", Holder: "h", Reason: strings.Repeat("r", 1025)}))},
		{"Unlock holder", "holder", second(r.Unlock(ctx, &pylokv1.UnlockRequest{Name: "held", Holder: "\x1b[2J"}))},
		{"List pattern", "pattern", second(r.List(ctx, &pylokv1.ListRequest{Pattern: "a/***"}))},
		{"List page_size", "page_size", second(r.List(ctx, &pylokv1.ListRequest{PageSize: -1}))},
		{"History pattern", "pattern", second(r.History(ctx, &pylokv1.HistoryRequest{Pattern: "../*"}))},
		{"History after_time", "after_time", second(r.History(ctx, &pylokv1.HistoryRequest{AfterTime: &timestamppb.Timestamp{Nanos: -1}}))},
		{"History before_time", "before_time", second(r.History(ctx, &pylokv1.HistoryRequest{BeforeTime: timestamppb.New(time.Time{})}))},
		{"History cause", "cause", second(r.History(ctx, &pylokv1.HistoryRequest{Cause: 99}))},
		{"History page_size", "page_size", second(r.History(ctx, &pylokv1.HistoryRequest{PageSize: -1}))},
		{"Watch pattern", "pattern", second(r.watch(t, &pylokv1.WatchRequest{Pattern: "/"}).Recv())},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := refused(t, test.err, codes.InvalidArgument, lock.ErrInvalidArgument)
			if d.violation.GetField() != test.field {
				t.Errorf("got violation %v, want one of %s", d.violation, test.field)
			}
		})
	}

	t.Run("nothing of it was locked", func(t *testing.T) {
		page, err := r.List(ctx, &pylokv1.ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(page.GetLocks()); n != 1 {
			t.Errorf("got %d locks, want the one that is held", n)
		}
	})
}

// TestInvalidUTF8: protobuf refuses it before the service sees it.
func TestInvalidUTF8(t *testing.T) {
	r := serve(t, setup{})
	request := []byte("\x0a\x03a\xff\xfeb"[:5]) // field 1, three bytes that are no UTF-8
	var response pylokv1.StatusResponse
	err := r.conn.Invoke(t.Context(), pylokv1.LockService_Status_FullMethodName, rawMessage(request), &response, grpc.ForceCodec(rawCodec{}))
	if code := status.Code(err); code != codes.Internal && code != codes.InvalidArgument {
		t.Errorf("got %v, want a refusal", err)
	}
}

type rawMessage []byte

// rawCodec sends bytes as they are.
type rawCodec struct{}

// Marshal implements encoding.Codec.
func (rawCodec) Marshal(v any) ([]byte, error) { return v.(rawMessage), nil }

// Unmarshal implements encoding.Codec.
func (rawCodec) Unmarshal(data []byte, v any) error { return proto.Unmarshal(data, v.(proto.Message)) }

// Name implements encoding.Codec.
func (rawCodec) Name() string { return "proto" }
