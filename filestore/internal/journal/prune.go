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

// Prune forgets the oldest segments as far as the retention allows, and returns
// the files to be removed. It keeps the active segment and all that comes after
// the checkpoint, which the next start needs. Only the writer calls it.
func (j *Journal) Prune(keep Retention, checkpoint lock.Revision) (remove []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var total int64
	for _, s := range j.segments {
		total += s.end
	}
	for len(j.segments) > 1 {
		oldest, next := j.segments[0], j.segments[1]
		tooOld := time.Since(next.begun) > keep.Age // all of oldest is older
		if !tooOld && total <= keep.Bytes || next.after > checkpoint {
			break
		}
		remove = append(remove, j.path(oldest))
		total -= oldest.end
		j.kept = next.after
		j.segments = j.segments[1:]
	}
	return remove
}
