package lockfile_test

import (
	"testing"

	"github.com/pylok/pylok/filestore/internal/lockfile"
)

// BenchmarkAppend writes the text of a usual lock file.
func BenchmarkAppend(b *testing.B) {
	l := example(b)
	b.ReportAllocs()
	for b.Loop() {
		lockfile.Append(nil, l, location)
	}
}
