package lockfile

import (
	"strings"

	"github.com/pylok/pylok/lock"
)

// NameOf returns the lock whose file a path in the root is, and whether it is one's.
func NameOf(file string) (lock.Name, bool) {
	text, isLock := strings.CutSuffix(file, lock.FileSuffix)
	if !isLock {
		return lock.Name{}, false
	}
	name, err := lock.ParseName(text)
	return name, err == nil
}

// MayBeIn reports whether lock files may be in a directory, by its path in the root, or
// below it.
func MayBeIn(dir string) bool {
	_, err := lock.ParseName(dir + "/x")
	return err == nil
}
