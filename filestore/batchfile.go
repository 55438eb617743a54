package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// batchFile says up to which revision the journal was durable when the committer
// began to make the files of its last batch. After a crash it tells a journal that
// lacks that batch alone, which nobody was told of, from one that lacks more: that
// was taken away, or is a copy from before. A clean stop, and the end of a start, leave
// none: all files are then of changes that are in the journal.
const batchFile = ownDir + "/batch"

// beginBatch writes batchFile, before the batch makes its first file.
func (s *Store) beginBatch() error {
	last := s.journal.Last()
	if s.batch == nil {
		file, err := disk.OpenRegular(s.work, batchFile, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := s.work.SyncDir(ownDir); err != nil { // before there are files that it tells of
			return errors.Join(err, file.Close())
		}
		s.batch = file
	} else if s.batchAfter == last {
		return nil
	}
	if _, err := s.batch.WriteAt(fmt.Appendf(nil, "%020d\n", last), 0); err != nil {
		return err
	}
	s.batchAfter = last
	return nil
}

// readBatchFile returns what batchFile says, 0: nothing that can be read. It also reports
// whether there is one.
func readBatchFile(fsys disk.FS) (after lock.Revision, exists bool, err error) {
	text, err := readWhole(fsys, batchFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	// A power cut may have left anything.
	revision, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63)
	return lock.Revision(revision), true, nil
}
