package disk

import (
	"errors"
	"io/fs"
	"syscall"
)

// IsAbsent reports whether err means that there is no such file in the tree: the name is
// missing, or something on the way to it is not a directory, or is a link.
func IsAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || IsBlocked(err)
}

// IsBlocked reports whether err means that something on the way to a file is not a
// directory.
func IsBlocked(err error) bool {
	return errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// IsExhausted reports whether err means that the process or the machine has no more
// descriptors or memory, which says nothing of a file.
func IsExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// ReasonOf leaves out the file's name, which the reader of a message knows.
func ReasonOf(err error) string {
	for {
		pathError, ok := errors.AsType[*fs.PathError](err)
		if !ok {
			return err.Error()
		}
		err = pathError.Err
	}
}
