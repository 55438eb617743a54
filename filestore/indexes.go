package filestore

import (
	"context"

	"github.com/pylok/pylok/filestore/internal/complaints"
)

// indexes makes the indexes by which History finds events, until ctx ends: those that are
// missing or damaged, and that of each segment of the journal when the next is begun.
func (s *Store) indexes(ctx context.Context) {
	for {
		if err := s.journal.BuildIndexes(ctx); ctx.Err() == nil {
			s.complaints.Result(complaints.NoIndex, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.journal.Unindexed():
		}
	}
}
