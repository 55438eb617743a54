package journal

import (
	"time"

	"github.com/pylok/pylok/lock"
)

// Retention says how much of the past is kept.
type Retention struct {
	// Age is how long an event is kept at least, unless Bytes cuts it short.
	Age time.Duration
	// Bytes is how large the journal may become, give or take a segment.
	Bytes int64
}

// bytes is how large the segment is, with its index.
func (s segment) bytes() int64 { return s.end + max(s.indexBytes, 0) }

// Prunable returns the files of the oldest segments that a retention lets go of, oldest
// first. It spares the active segment and all that comes after a revision, which the
// next start needs.
func (j *Journal) Prunable(keep Retention, after lock.Revision) (files []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var total int64
	for _, s := range j.segments {
		total += s.bytes()
	}
	for i := range max(len(j.segments), 1) - 1 {
		s, next := j.segments[i], j.segments[i+1]
		tooOld := time.Since(next.begun) > keep.Age // all before it is older
		if !tooOld && total <= keep.Bytes || next.after > after {
			break
		}
		total -= s.bytes()
		files = append(files, j.path(s))
	}
	return files
}

// Prune forgets the n oldest segments. Their files, and those that IndexFile names, are
// then of no more use: the caller removes them, oldest first. Only the writer calls it.
func (j *Journal) Prune(n int) {
	if n == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = j.segments[n:]
	j.kept = j.segments[0].after
}
