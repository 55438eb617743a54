package filestore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/pylok/pylok/filestore"
	"github.com/pylok/pylok/lock"
	"github.com/pylok/pylok/lock/memstore"
)

// TestListSeeks: a list looks at no more than what a pattern selects has in common with it,
// although much is beside and below: it does not get so far as to notice that its context
// has ended.
func TestListSeeks(t *testing.T) {
	const many = 1000
	file, err := filestore.Open(t.Context(), filestore.Config{Root: t.TempDir(), NoNotify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for kind, s := range map[string]lock.Store{"files": file, "memory": memstore.New(memstore.Config{})} {
		var changes []lock.Change
		for _, form := range []string{"a-%d", "conf/app-%d", "conf/app/%d", "conf/app/x/%d", "conf/app/x/_+%d", "conf/app/x/y/%d", "conf/b/%d", "z/%d"} {
			for i := range many {
				changes = append(changes, lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: lock.MustParseName(fmt.Sprintf(form, i))}})
			}
		}
		for _, name := range []string{"conf/app", "conf/app/_+1", "conf/app/_+2", "conf/app/q/r"} {
			changes = append(changes, lock.Change{Type: lock.Locked, Cause: lock.Request, Lock: lock.Lock{Name: lock.MustParseName(name)}})
		}
		for len(changes) > 0 {
			n := min(500, len(changes))
			if _, err := s.Commit(t.Context(), changes[:n]); err != nil {
				t.Fatal(err)
			}
			changes = changes[n:]
		}
		app := lock.MustParsePattern("conf/app")
		all := lock.NewFilter(func(string) bool { return true })
		for _, test := range []struct {
			pattern lock.Pattern
			want    int
		}{
			{app, 1}, {app.Where(all), 1}, {app.WithSlots(), 3}, {app.WithSlots().Where(all), 3}, {lock.MustParseName("conf/app").Slots(), 2},
			{lock.MustParseName("conf/app/q").Below(), 1}, {lock.MustParseName("conf/none").Below(), 0},
		} {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			_, locks := s.List(ended, test.pattern, lock.Name{})
			got := 0
			for _, err := range locks {
				if err != nil {
					t.Errorf("%s: %+v: %v", kind, test.pattern, err)
				}
				got++
			}
			if got != test.want {
				t.Errorf("%s: %+v: %d are listed, want %d", kind, test.pattern, got, test.want)
			}
		}
		_, locks := s.List(t.Context(), app.WithSlots(), lock.MustParseName("conf/app/_+1"))
		for l := range locks {
			if l.Name.String() != "conf/app/_+2" {
				t.Errorf("%s: behind the first shared hold %v is listed", kind, l.Name)
			}
		}
	}
}
