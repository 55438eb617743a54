package lockfile_test

import (
	"testing"
	"time"

	"github.com/pylok/pylok/filestore/internal/lockfile"
	"github.com/pylok/pylok/lock"
)

// BenchmarkAppend writes the text of a usual lock file.
func BenchmarkAppend(b *testing.B) {
	l := lock.Lock{
		Name:        lock.MustParseName("server-cluster3w1-2"),
		Data:        parseData(b, `{"msg":"Locking App1 on server-cluster3w1-2 for canary deployment","contact_email":"billyjenkins@example.com","data":{"status":"MAINT","server":"server-cluster3w1-2","backend":"App1"}}`),
		Holder:      "alice@ci-7",
		Token:       42,
		Revision:    42,
		AcquireTime: time.Date(2026, 11, 22, 20, 3, 11, 482_000_000, time.UTC),
		TTL:         10 * time.Minute,
	}
	b.ReportAllocs()
	for b.Loop() {
		lockfile.Append(nil, l, location)
	}
}
