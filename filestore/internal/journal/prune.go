package journal

import (
	"math"
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

// MayPrune reports whether there is something that the retention lets go of.
func (j *Journal) MayPrune(keep Retention) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.prunable(keep, math.MaxUint64) > 0
}

// Prune forgets the oldest segments as far as the retention allows, and returns
// the files to be removed, oldest first. It keeps the active segment and all that
// comes after a revision, which the next start needs. Only the writer calls it.
func (j *Journal) Prune(keep Retention, after lock.Revision) (remove []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for range j.prunable(keep, after) {
		remove = append(remove, j.path(j.segments[0]))
		j.segments = j.segments[1:]
		j.kept = j.segments[0].after
	}
	return remove
}

// prunable returns how many segments can go.
func (j *Journal) prunable(keep Retention, after lock.Revision) (n int) {
	var total int64
	for _, s := range j.segments {
		total += s.end
	}
	for n < len(j.segments)-1 {
		next := j.segments[n+1]
		tooOld := time.Since(next.begun) > keep.Age // all before it is older
		if !tooOld && total <= keep.Bytes || next.after > after {
			break
		}
		total -= j.segments[n].end
		n++
	}
	return n
}
