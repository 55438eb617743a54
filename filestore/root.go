package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// absolute returns the absolute path of a root.
func absolute(dir string) (string, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if !utf8.ValidString(root) {
		return "", fmt.Errorf("the root %q is not UTF-8, and no answer can have the location of a lock file in it; give it another name, or a symbolic link to it", root)
	}
	return root, nil
}

// mustBeRoot returns an error unless a server has served a root before.
func mustBeRoot(dir string) error {
	root, err := absolute(dir)
	if err != nil {
		return err
	}
	for _, dir := range []string{root, filepath.Join(root, ownDir)} {
		_, err := os.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is missing, and the root must exist: mount its volume; or, to begin a new root, start once without --root-must-exist", dir)
		}
		if err != nil {
			return fmt.Errorf("the root %s cannot be opened: %w", root, rootCause(err))
		}
	}
	return nil
}

// stayEvery is how often, at least, the root is looked for in its place: another server
// may have been started on what others have put there, and both would grant a lock.
const stayEvery = time.Second

// stay looks, until ctx ends, whether the root's path leads to the directory that is
// served. While it does not, nothing is changed.
func (s *Store) stay(ctx context.Context) {
	ticker := time.NewTicker(min(s.config.PollInterval, stayEvery))
	defer ticker.Stop()
	for kept := false; ; {
		kept = kept || s.keepCleanersOff()
		s.lookForRoot()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lookForRoot notes whether the root is in its place.
func (s *Store) lookForRoot() {
	err := s.files.Whereabouts()
	before := s.away.Load()
	switch {
	case disk.IsExhausted(err):
	case err == nil && before != nil:
		s.away.Store(nil)
		s.config.Logger.Info("the root is in its place again")
	case err != nil && (before == nil || (*before).Error() != awayError(err).Error()):
		away := awayError(err)
		s.away.Store(&away)
		if before == nil {
			s.config.Logger.Error("the root is not in its place; nothing is locked or unlocked until it is there again", "root", s.files.root, "error", err)
		}
	default:
		return
	}
	s.tellHealth()
}

// awayError refuses changes of a root that is not in its place.
func awayError(err error) error {
	return &lock.Error{
		Reason:  lock.ErrReadOnly,
		Message: fmt.Sprintf("%v: it was moved or removed, or something was mounted over it, since the server opened it; nothing changed. Put it back, or start the server again to serve what is there now", err),
		Err:     err,
	}
}

// keepCleanersOff takes a shared flock(2) on the root, and reports whether that is done
// with. systemd-tmpfiles, which removes old files from directories such as /tmp, leaves
// out a directory that it cannot lock for itself, with all that is below.
func (s *Store) keepCleanersOff() bool {
	err := s.files.TryShare()
	if errors.Is(err, disk.ErrLocked) {
		return false // one is at work just now
	}
	if err != nil {
		s.config.Logger.Debug("the root cannot be locked, which would keep cleaners of temporary files off", "error", err)
	}
	return true
}
