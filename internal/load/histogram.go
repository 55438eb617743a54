package load

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// fineBits: a duration is kept to within one part in 2^(fineBits-1).
	fineBits = 8
	// maxBits: longer ones than 2^maxBits ns, 18 minutes, count as that.
	maxBits = 40
	buckets = 1<<fineBits + (maxBits-fineBits)<<(fineBits-1)
)

// Histogram counts durations, to better than 1 %. The zero Histogram is empty. Many
// goroutines may add at once.
type Histogram struct {
	counts [buckets]atomic.Int64
	count  atomic.Int64
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.count.Add(1)
}

// bucketOf: durations below 2^fineBits ns have a bucket each; from there on each
// doubling is cut into 2^(fineBits-1) buckets.
func bucketOf(d time.Duration) int {
	v := uint64(min(max(d, 0), 1<<maxBits-1))
	shift := max(bits.Len64(v)-fineBits, 0)
	return shift<<(fineBits-1) + int(v>>shift)
}

// middleOf returns the duration in the middle of a bucket.
func middleOf(bucket int) time.Duration {
	shift := max(bucket>>(fineBits-1)-1, 0)
	low := (bucket - shift<<(fineBits-1)) << shift
	return time.Duration(low + 1<<shift/2)
}

// Count returns how many durations were added.
func (h *Histogram) Count() int64 { return h.count.Load() }

// Quantile returns the duration that the share q of all durations does not exceed,
// 0 of an empty Histogram.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(q * float64(h.Count()-1))
	for bucket := range h.counts {
		n := h.counts[bucket].Load()
		if rank < n {
			return middleOf(bucket)
		}
		rank -= n
	}
	return 0
}
