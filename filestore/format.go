package filestore

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/pylok/pylok/filestore/internal/disk"
	"github.com/pylok/pylok/lock"
)

// formatFile says the version of everything in the root. A server refuses a root of a
// format that it does not know.
const formatFile = ownDir + "/format"

// format is what formatFile says.
type format string

const (
	// firstFormat is that of a root in which no hold needs more.
	firstFormat format = "pylok root, format 1\n"
	// secondFormat is that of a root that has, or had, a hold which a server of the first
	// one would take for a plain hold of its own name alone, and which would so be broken:
	// a tree, a shared hold, or one that is kept when its time is over.
	secondFormat format = "pylok root, format 2\n"
)

// formatOf returns the least format of a root that has a hold.
func formatOf(hold *lock.Lock) format {
	if hold.Tree || hold.OnExpiry != lock.End || hold.Stale() || hold.Name.IsSlot() {
		return secondFormat
	}
	return firstFormat
}

// readFormat returns the format of a root; empty: it is a new one. The error says that this
// program does not know it.
func readFormat(fsys disk.FS) (format, error) {
	text, err := readWhole(fsys, formatFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if f := format(text); f == firstFormat || f == secondFormat {
		return f, nil
	}
	return "", &formatError{text}
}

// formatError is that a root has a format that this program does not know.
type formatError struct{ text []byte }

func (e *formatError) Error() string {
	return fmt.Sprintf("%s says %q and this program knows %q and %q: use the program that wrote it, or a newer one", formatFile, e.text, firstFormat, secondFormat)
}

// writeFormat gives a root a format, for good.
func writeFormat(fsys disk.FS, f format) error {
	if err := writeWhole(fsys, formatFile, []byte(f)); err != nil {
		return err
	}
	return fsys.SyncDir(ownDir)
}

// raiseFormat gives the root the second format, if it has not got it, before it has the
// first hold that needs it. The caller must hold committing.
func (s *Store) raiseFormat() error {
	if s.format == secondFormat {
		return nil
	}
	if err := writeFormat(s.files, secondFormat); err != nil {
		return err
	}
	s.format = secondFormat
	s.config.Logger.Info("the root has a hold that servers before this version do not understand; they refuse it from now on", "file", formatFile)
	return nil
}

// haveFormatOf is raiseFormat where a commit's changes need it.
func (s *Store) haveFormatOf(changes []lock.Change) error {
	for i := range changes {
		if s.format == firstFormat && formatOf(&changes[i].Lock) == secondFormat {
			return s.raiseFormat()
		}
	}
	return nil
}

// haveFormatOfFound is raiseFormat where what somebody made of lock files needs it.
func (s *Store) haveFormatOfFound(found []inspected) error {
	for i := range found {
		f := &found[i]
		hold := lock.Lock{Name: f.name}
		if f.known != nil {
			hold = f.known.lock
		}
		hold.Tree = f.IsTree(hold, s.files.location(f.name))
		if f.exists() && s.format == firstFormat && formatOf(&hold) == secondFormat {
			return s.raiseFormat()
		}
	}
	return nil
}

// haveFormatOfAll is raiseFormat where a hold of the root needs it, whoever granted it.
func (s *Store) haveFormatOfAll() error {
	needed := false
	if s.format == firstFormat {
		s.locks.Ascend(func(e *entry) bool {
			needed = formatOf(&e.lock) == secondFormat
			return !needed
		})
	}
	if !needed {
		return nil
	}
	return s.raiseFormat()
}
