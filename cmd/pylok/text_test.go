package main

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// plainStyle is what a pipe in Berlin gets, two minutes after sampleLock was taken.
func plainStyle(t *testing.T) style {
	return style{now: sampleTime.Add(2*time.Minute + 10*time.Second).In(zone(t, "Europe/Berlin"))}
}

var sampleTime = time.Date(2026, 11, 22, 18, 3, 11, 482e6, time.UTC)

func sampleLock(t *testing.T) *pylokv1.Lock {
	t.Helper()
	data, err := structpb.NewStruct(map[string]any{
		"msg":           "Locking App1 on server-cluster3w1-2 for canary deployment",
		"contact_email": "billyjenkins@example.com",
		"data":          map[string]any{"backend": "App1", "status": "MAINT"},
		"version":       "1.10",
	})
	if err != nil {
		t.Fatal(err)
	}
	return &pylokv1.Lock{
		Name:             "server-cluster3w1-2",
		State:            pylokv1.LockState_LOCK_STATE_LOCKED,
		LockFileLocation: "/tmp/locks/server-cluster3w1-2.lock",
		Data:             data,
		Holder:           "alice@ci-7",
		Token:            42,
		Revision:         42,
		AcquireTime:      timestamppb.New(sampleTime),
	}
}

func TestLockBlock(t *testing.T) {
	full := sampleLock(t)
	leased := sampleLock(t)
	leased.Ttl = durationpb.New(30 * time.Minute)
	leased.ExpireTime = timestamppb.New(sampleTime.Add(30 * time.Minute))
	leased.Data = nil
	leased.Waiters = 3
	hostile := &pylokv1.Lock{
		Name:             "x",
		State:            pylokv1.LockState_LOCK_STATE_LOCKED,
		LockFileLocation: "/tmp/\x1b[2J/x.lock",
		Token:            7,
		AcquireTime:      timestamppb.New(sampleTime),
		ExpireTime:       timestamppb.New(sampleTime.Add(48 * time.Hour)),
		Problem:          "bad\x07 byte\n  token   8",
		Data: &structpb.Struct{Fields: map[string]*structpb.Value{
			"msg":     structpb.NewStringValue("one\n\x1b]0;owned\x07two\u009b31m\n"),
			"\x1b[1m": structpb.NewStringValue("\u202eright to left"),
			"lines":   structpb.NewStringValue("a\n\nb\n"),
		}},
	}
	for _, test := range []struct {
		name string
		lock *pylokv1.Lock
		want string
	}{
		{"full", full, `server-cluster3w1-2  locked
  holder  alice@ci-7
  since   2026-11-22 19:03:11 (2m ago)
  token   42
  file    /tmp/locks/server-cluster3w1-2.lock
  msg     Locking App1 on server-cluster3w1-2 for canary deployment
  data
    contact_email: billyjenkins@example.com
    data:
      backend: App1
      status: MAINT
    version: "1.10"
`},
		{"leased", leased, `server-cluster3w1-2  locked
  holder  alice@ci-7
  since   2026-11-22 19:03:11 (2m ago)
  until   2026-11-22 19:33:11 (in 28m), unless renewed for another 30m
  token   42
  file    /tmp/locks/server-cluster3w1-2.lock
  waiters 3
`},
		{"hostile", hostile, `x  locked
  holder  (anonymous)
  since   2026-11-22 19:03:11 (2m ago)
  until   2026-11-24 19:03:11 (in 2d)
  token   7
  file    /tmp/\x1b[2J/x.lock
  problem bad\x07 byte
            token   8
  msg     one
          \x1b]0;owned\x07two\x9b31m
  data
    "\x1B[1m": "\u202Eright to left"
    lines: |
      a

      b
`},
		{"tree", &pylokv1.Lock{
			Name: "prod", State: pylokv1.LockState_LOCK_STATE_LOCKED, Holder: "alice", Token: 9, AcquireTime: timestamppb.New(sampleTime),
			Tree: true, HeldBelow: 2, Waiters: 3,
			Waiting: []*pylokv1.Waiter{
				{Place: 17, Holder: "bob\x07", SinceTime: timestamppb.New(sampleTime.Add(time.Minute)), UntilTime: timestamppb.New(sampleTime.Add(time.Hour)), Names: []string{"prod/db", "prod/web"}, Message: "release\n44"},
				{Place: 18, Shared: true, SinceTime: timestamppb.New(sampleTime.Add(time.Minute))},
			},
		}, `prod  locked
  holder  alice
  since   2026-11-22 19:03:11 (2m ago)
  token   9
  scope   tree, all names below; held below: 2
  waiters 3
    place 17  bob\x07  for prod/db prod/web  since 2026-11-22 19:04:11 (1m ago), until 2026-11-22 20:03:11 (in 58m)  release 44
    place 18  (anonymous)  shared  since 2026-11-22 19:04:11 (1m ago)
    and 1 more
`},
		{"kept", &pylokv1.Lock{
			Name: "app", State: pylokv1.LockState_LOCK_STATE_LOCKED, Holder: "ci-7", Token: 42, AcquireTime: timestamppb.New(sampleTime),
			ExpireTime: timestamppb.New(sampleTime.Add(time.Hour)), OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP, Set: &pylokv1.SetRef{Id: 41, Size: 3},
		}, `app  locked
  holder  ci-7
  since   2026-11-22 19:03:11 (2m ago)
  until   2026-11-22 20:03:11 (in 58m); then it is stale, and kept
  token   42
  set     41/3, one of 3 that were taken together
`},
		{"stale, and in conflict", &pylokv1.Lock{
			Name: "app", State: pylokv1.LockState_LOCK_STATE_LOCKED, Holder: "ci-7", Token: 42, AcquireTime: timestamppb.New(sampleTime),
			StaleTime: timestamppb.New(sampleTime.Add(time.Minute)), OnExpiry: pylokv1.OnExpiry_ON_EXPIRY_KEEP,
			Conflict: "it began while prod was frozen by alice",
		}, `app  locked
  holder  ci-7
  since   2026-11-22 19:03:11 (2m ago)
  stale   since 2026-11-22 19:04:11 (1m ago); kept until somebody has looked
  token   42
  conflict it began while prod was frozen by alice
`},
		{"below a tree", &pylokv1.Lock{
			Name: "prod/db", State: pylokv1.LockState_LOCK_STATE_UNLOCKED, Waiters: 1,
			BlockedBy: &pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_TREE, Lock: &pylokv1.Lock{
				Name: "prod", Holder: "alice", AcquireTime: timestamppb.New(sampleTime), ExpireTime: timestamppb.New(sampleTime.Add(time.Hour)),
				Data: &structpb.Struct{Fields: map[string]*structpb.Value{"msg": structpb.NewStringValue("holiday")}},
			}},
		}, `prod/db  unlocked
  blocked by prod, a tree of alice since 2026-11-22 19:03:11 (2m ago), until 2026-11-22 20:03:11 (in 58m): holiday
  waiters 1
`},
		{"below a tree to come", &pylokv1.Lock{Name: "x", BlockedBy: &pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_TREE}},
			"x  unlocked\n  blocked by a tree above it that is about to be granted\n"},
		{"below a hidden tree", &pylokv1.Lock{Name: "x", BlockedBy: &pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_TREE, Lock: &pylokv1.Lock{State: pylokv1.LockState_LOCK_STATE_LOCKED}}},
			"x  unlocked\n  blocked by a tree above it that you may not view\n"},
		{"shared", &pylokv1.Lock{
			Name: "conf", SharedHolds: 2,
			BlockedBy: &pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_SHARED, Lock: &pylokv1.Lock{Name: "conf/_+1", Holder: "reader", AcquireTime: timestamppb.New(sampleTime)}},
		}, "conf  unlocked\n  blocked by 2 shared holds, first conf/_+1 of reader since 2026-11-22 19:03:11 (2m ago)\n"},
		{"an older request", &pylokv1.Lock{
			Name:      "x",
			BlockedBy: &pylokv1.Obstacle{Kind: pylokv1.ObstacleKind_OBSTACLE_KIND_WAITER, Waiter: &pylokv1.Waiter{Place: 5, Holder: "all", Names: []string{"x", "y"}}},
		}, "x  unlocked\n  blocked by who waits: place 5  all  for x y\n"},
		{"free", &pylokv1.Lock{Name: "x", State: pylokv1.LockState_LOCK_STATE_UNLOCKED}, "x  unlocked\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := plainStyle(t).lockBlock(test.lock); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	t.Run("colour", func(t *testing.T) {
		s := plainStyle(t)
		s.colour = true
		got := s.lockBlock(&pylokv1.Lock{Name: "x", State: pylokv1.LockState_LOCK_STATE_UNLOCKED})
		if want := "x  \x1b[32munlocked\x1b[0m\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestLockTable(t *testing.T) {
	long := sampleLock(t)
	anonymous := &pylokv1.Lock{
		Name:        "lb/日本",
		State:       pylokv1.LockState_LOCK_STATE_LOCKED,
		Token:       7,
		AcquireTime: timestamppb.New(sampleTime),
		ExpireTime:  timestamppb.New(sampleTime.Add(time.Hour)),
		Data: &structpb.Struct{Fields: map[string]*structpb.Value{
			"msg": structpb.NewStringValue("two\nlines\tand \x1b[31mred"),
		}},
	}
	broken := &pylokv1.Lock{Name: "x", State: pylokv1.LockState_LOCK_STATE_LOCKED, Token: 8, Holder: "eve\x1b[2J", Problem: "it is\nempty"}
	locks := []*pylokv1.Lock{anonymous, long, broken}
	want := `NAME                 HOLDER       SINCE                UNTIL                MSG
lb/日本                (anonymous)  2026-11-22 19:03:11  2026-11-22 20:03:11  two lines and \x1b[31mred
server-cluster3w1-2  alice@ci-7   2026-11-22 19:03:11  -                    Locking App1 on server-cluster3w1-2 for canary deployment
x                    eve\x1b[2J   -                    -                    problem: it is\nempty
`
	if got := plainStyle(t).lockTable(locks); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	tree := &pylokv1.Lock{Name: "prod", State: pylokv1.LockState_LOCK_STATE_LOCKED, Tree: true}
	kept := &pylokv1.Lock{Name: "x/_+1", State: pylokv1.LockState_LOCK_STATE_LOCKED, Shared: true, StaleTime: timestamppb.New(sampleTime)}
	set := &pylokv1.Lock{Name: "y", State: pylokv1.LockState_LOCK_STATE_LOCKED, Set: &pylokv1.SetRef{Id: 41, Size: 3}, Conflict: "it is held beside 2 shared holds"}
	kinds := `NAME   HOLDER       SINCE  UNTIL  KIND           MSG
x      eve\x1b[2J   -      -      -              problem: it is\nempty
prod   (anonymous)  -      -      tree
x/_+1  (anonymous)  -      -      stale, shared
y      (anonymous)  -      -      set 41/3       conflict: it is held beside 2 shared holds
`
	if got := plainStyle(t).lockTable([]*pylokv1.Lock{broken, tree, kept, set}); got != kinds {
		t.Errorf("got\n%s\nwant\n%s", got, kinds)
	}
	narrow := plainStyle(t)
	narrow.width = 90
	want = `NAME                 HOLDER       SINCE                UNTIL                MSG
lb/日本                (anonymous)  2026-11-22 19:03:11  2026-11-22 20:03:11  two lines a...
server-cluster3w1-2  alice@ci-7   2026-11-22 19:03:11  -                    Locking App...
x                    eve\x1b[2J   -                    -                    problem: it...
`
	if got := narrow.lockTable(locks); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEventLine(t *testing.T) {
	event := func(kind pylokv1.EventType, cause pylokv1.EventCause, change func(*pylokv1.Event)) *pylokv1.Event {
		e := &pylokv1.Event{
			Revision: 43,
			Time:     timestamppb.New(sampleTime),
			Type:     kind,
			Cause:    cause,
			Actor:    "alice@ci-7",
			Lock: &pylokv1.Lock{Name: "lb/x", Holder: "alice@ci-7", Token: 42, Data: &structpb.Struct{Fields: map[string]*structpb.Value{
				"msg": structpb.NewStringValue("Locking\nApp1"),
			}}},
		}
		if change != nil {
			change(e)
		}
		return e
	}
	const (
		locked   = pylokv1.EventType_EVENT_TYPE_LOCKED
		updated  = pylokv1.EventType_EVENT_TYPE_UPDATED
		unlocked = pylokv1.EventType_EVENT_TYPE_UNLOCKED
		request  = pylokv1.EventCause_EVENT_CAUSE_REQUEST
		forced   = pylokv1.EventCause_EVENT_CAUSE_FORCED
		expired  = pylokv1.EventCause_EVENT_CAUSE_EXPIRED
		file     = pylokv1.EventCause_EVENT_CAUSE_FILE
	)
	for _, test := range []struct {
		name  string
		event *pylokv1.Event
		dates bool
		want  string
	}{
		{"locked", event(locked, request, nil), false, "19:03:11  locked    lb/x  alice@ci-7  token 42  Locking App1\n"},
		{"with the date", event(locked, request, nil), true, "2026-11-22 19:03:11  locked    lb/x  alice@ci-7  token 42  Locking App1\n"},
		{"in the place of another", event(locked, request, func(e *pylokv1.Event) { e.PreviousToken = 41; e.Lock.Tree = true }), false, "19:03:11  locked    lb/x  alice@ci-7  token 42 after 41  tree  Locking App1\n"},
		{"stale", event(updated, expired, func(e *pylokv1.Event) { e.Lock.StaleTime = timestamppb.New(sampleTime) }), false, "19:03:11  updated   lb/x  alice@ci-7  token 42  stale  (expired)  Locking App1\n"},
		{"asked", event(pylokv1.EventType_EVENT_TYPE_ASKED, 0, func(e *pylokv1.Event) { e.Actor, e.Reason = "bob", "let go,\nplease" }), false, "19:03:11  asked     lb/x  alice@ci-7  token 42  (by bob: let go,\\nplease)  Locking App1\n"},
		{"yesterday", event(updated, request, func(e *pylokv1.Event) {
			e.Time = timestamppb.New(sampleTime.Add(-24 * time.Hour))
			e.Lock.Data = nil
		}), false, "2026-11-21 19:03:11  updated   lb/x  alice@ci-7  token 42\n"},
		{"by somebody else", event(updated, request, func(e *pylokv1.Event) {
			e.Actor = "bob@desk"
		}), false, "19:03:11  updated   lb/x  alice@ci-7  token 42  (by bob@desk)  Locking App1\n"},
		{"by nobody known", event(updated, request, func(e *pylokv1.Event) {
			e.Actor = ""
		}), false, "19:03:11  updated   lb/x  alice@ci-7  token 42  Locking App1\n"},
		{"file", event(locked, file, func(e *pylokv1.Event) {
			e.Lock.Holder, e.Actor, e.Lock.Data = "", "", nil
		}), false, "19:03:11  locked    lb/x  (anonymous)  token 42  (by its file)\n"},
		{"expired", event(unlocked, expired, nil), false, "19:03:11  unlocked  lb/x  alice@ci-7  token 42  (expired)  Locking App1\n"},
		{"forced", event(unlocked, forced, func(e *pylokv1.Event) {
			e.Actor, e.Reason = "bob\x1b[2J", "alice is\non holiday"
		}), false, `19:03:11  unlocked  lb/x  alice@ci-7  token 42  (forced by bob\x1b[2J: alice is\non holiday)  Locking App1` + "\n"},
		{"a reason alone", event(unlocked, request, func(e *pylokv1.Event) {
			e.Reason = "done"
		}), false, "19:03:11  unlocked  lb/x  alice@ci-7  token 42  (done)  Locking App1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := plainStyle(t).eventLine(test.event, test.dates); got != test.want {
				t.Errorf("got  %swant %s", got, test.want)
			}
		})
	}
}

func TestHeldBy(t *testing.T) {
	data, err := lock.NewData(map[string]any{"msg": "two\nlines \x1b[31m"})
	if err != nil {
		t.Fatal(err)
	}
	l := lock.Lock{Name: lock.MustParseName("x"), Holder: "alice@ci-7", Token: 7, AcquireTime: sampleTime, Data: data}
	s := plainStyle(t)
	if got, want := s.heldBy(l), `alice@ci-7 since 2026-11-22 19:03:11 (2m ago), until somebody releases it: two lines \x1b[31m`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	l.TTL, l.StaleTime = time.Minute, sampleTime.Add(time.Minute)
	if got, want := s.heldBy(l), `alice@ci-7 since 2026-11-22 19:03:11 (2m ago), stale: two lines \x1b[31m`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	l.Holder, l.Data, l.StaleTime, l.Deadline = "", lock.Data{}, time.Time{}, sampleTime.Add(time.Hour)
	if got, want := s.heldBy(l), `(anonymous) since 2026-11-22 19:03:11 (2m ago), until 2026-11-22 20:03:11 (in 58m)`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUnlockBlock(t *testing.T) {
	released := sampleLock(t)
	released.Waiters = 3
	next := &pylokv1.Lock{Name: released.GetName(), State: pylokv1.LockState_LOCK_STATE_LOCKED, Holder: "bob\x1b[2J@laptop", Token: 44, Waiters: 2}
	const line = "server-cluster3w1-2  unlocked  alice@ci-7 held it for 2m\n"
	for _, test := range []struct {
		name     string
		response *pylokv1.UnlockResponse
		want     string
	}{
		{"somebody has it now", &pylokv1.UnlockResponse{Lock: released, Next: next},
			line + `  next    bob\x1b[2J@laptop waited for it and has it now, with token 44; 2 more wait` + "\n"},
		{"who was next had left", &pylokv1.UnlockResponse{Lock: released},
			line + "  next    3 waited for it; pylok status server-cluster3w1-2 tells who has it now\n"},
		{"nobody waited", &pylokv1.UnlockResponse{Lock: sampleLock(t)}, line},
	} {
		if got := plainStyle(t).unlockBlock(test.response); got != test.want {
			t.Errorf("%s: got\n%swant\n%s", test.name, got, test.want)
		}
	}
}
