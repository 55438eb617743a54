package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"

	pylokv1 "github.com/pylok/pylok/gen/go/pylok/v1"
	"github.com/pylok/pylok/lock"
)

// held is the held locks by name.
type held map[string]*pylokv1.Lock

// list returns what List says, page by page.
func list(ctx context.Context, client pylokv1.LockServiceClient) (held, error) {
	locks := make(held)
	request := &pylokv1.ListRequest{PageSize: 1000}
	for {
		page, err := client.List(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("List: %w", err)
		}
		for _, l := range page.Locks {
			if locks[l.Name] != nil {
				return nil, fmt.Errorf("List has %s twice", l.Name)
			}
			locks[l.Name] = l
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return locks, nil
		}
	}
}

// history returns all events after a revision.
func history(ctx context.Context, client pylokv1.LockServiceClient, after uint64) ([]*pylokv1.Event, error) {
	var events []*pylokv1.Event
	request := &pylokv1.HistoryRequest{AfterRevision: after, PageSize: 1000}
	for {
		page, err := client.History(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("History: %w", err)
		}
		events = append(events, page.Events...)
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return events, nil
		}
	}
}

// apply does what an event tells.
func (h held) apply(e *pylokv1.Event) {
	switch e.Type {
	case pylokv1.EventType_EVENT_TYPE_RESET:
		clear(h)
	case pylokv1.EventType_EVENT_TYPE_LOCKED, pylokv1.EventType_EVENT_TYPE_UPDATED:
		h[e.Lock.Name] = e.Lock
	case pylokv1.EventType_EVENT_TYPE_UNLOCKED:
		delete(h, e.Lock.Name)
	}
}

// differences says in words what differs; what no event tells is left aside.
func (h held) differences(other held, mine, others string) (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		a, b := h[name], other[name]
		if b == nil {
			problems = append(problems, fmt.Sprintf("%s is held by %s and free by %s: %v", name, mine, others, a))
		} else if a, b := comparable(a), comparable(b); !proto.Equal(a, b) {
			problems = append(problems, fmt.Sprintf("%s is\n\t%v by %s and\n\t%v by %s", name, a, mine, b, others))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		if h[name] == nil {
			problems = append(problems, fmt.Sprintf("%s is free by %s and held by %s: %v", name, mine, others, other[name]))
		}
	}
	return problems
}

func comparable(l *pylokv1.Lock) *pylokv1.Lock {
	l = proto.CloneOf(l)
	l.Waiters, l.ExpireTime, l.Ttl, l.Warnings = 0, nil, nil, nil // no events tell them
	return l
}

// lockFile is a lock file as any program may read it.
type lockFile struct {
	text  []byte
	whole map[string]any // nil: it is no YAML mapping
	data  string         // the user's keys, as JSON
}

// readFiles reads all lock files of a root.
func readFiles(root string) (map[string]lockFile, error) {
	files := make(map[string]lockFile)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry.Name() == ".pylok" {
			return fs.SkipDir
		}
		relative, err := filepath.Rel(root, path)
		name, isLock := strings.CutSuffix(relative, ".lock")
		if err != nil || !isLock || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		files[name] = parseFile(text)
		return nil
	})
	return files, err
}

func parseFile(text []byte) lockFile {
	f := lockFile{text: text}
	if yaml.Unmarshal(text, &f.whole) != nil || f.whole == nil {
		f.whole = nil
		return f
	}
	data := maps.Clone(f.whole)
	for _, key := range lock.ReservedKeys {
		delete(data, key)
	}
	json, err := json.Marshal(data)
	if err != nil {
		f.whole = nil
		return f
	}
	f.data = string(json)
	return f
}

// disagreements says in words where the held locks are not what the files say.
func (h held) disagreements(files map[string]lockFile) (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		l := h[name]
		file, ok := files[name]
		data, _ := json.Marshal(l.Data.AsMap())
		switch {
		case !ok:
			problems = append(problems, fmt.Sprintf("%s is held and has no lock file: %v", name, l))
		case (file.whole != nil) != (l.Problem == ""):
			problems = append(problems, fmt.Sprintf("%s has the problem %q and the lock file %q", name, l.Problem, file.text))
		case l.Problem == "" && file.data != string(data):
			problems = append(problems, fmt.Sprintf("%s has the data %s and the lock file %q", name, data, file.text))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if h[name] == nil {
			problems = append(problems, fmt.Sprintf("%s is free and has the lock file %q", name, files[name].text))
		}
	}
	return problems
}

// cut shortens a list of problems to what people read.
func cut(problems []string) string {
	const most = 10
	if more := len(problems) - most; more > 0 {
		problems = append(problems[:most:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(problems, "\n")
}
