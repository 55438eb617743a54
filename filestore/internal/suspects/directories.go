package suspects

import (
	"strings"

	"github.com/google/btree"
)

// directory is what the poller knows of a directory.
type directory struct {
	path string // in the root
	Directory
	watch int32 // by inotify; 0: none; refused: there was none for it
}

// refused is the watch of a directory that inotify refused, mostly as one of many.
const refused = -1

// directories is all directories that lock files may be in. It is not safe for use by
// several goroutines.
type directories struct {
	tree    *btree.BTreeG[*directory] // by path
	refused int                       // how many have no watch as it was refused
	key     directory                 // to ask the tree for, which does not keep it
}

func newDirectories() directories {
	return directories{tree: btree.NewG(32, func(a, b *directory) bool { return a.path < b.path })}
}

func (ds *directories) get(path string) *directory {
	d, _ := ds.tree.Get(ds.at(path))
	return d
}

// at returns the key of a path, until it is called again.
func (ds *directories) at(path string) *directory {
	ds.key.path = path
	return &ds.key
}

// set adds a directory, in place of the one with its path.
func (ds *directories) set(d *directory) {
	ds.count(d, 1)
	if before, was := ds.tree.ReplaceOrInsert(d); was {
		ds.count(before, -1)
	}
}

func (ds *directories) count(d *directory, n int) {
	if d.watch == refused {
		ds.refused += n
	}
}

// remove takes out a directory and those below it, and returns them.
func (ds *directories) remove(path string) (removed []*directory) {
	if d, was := ds.tree.Delete(ds.at(path)); was {
		removed = append(removed, d)
	}
	below := path + "/"
	ds.tree.AscendGreaterOrEqual(ds.at(below), func(d *directory) bool {
		if strings.HasPrefix(d.path, below) {
			removed = append(removed, d)
			return true
		}
		return false
	})
	for _, d := range removed {
		ds.tree.Delete(d)
		ds.count(d, -1)
	}
	return removed
}

// after returns the next directories after a path, at most so many.
func (ds *directories) after(path string, most int) (next []*directory) {
	ds.tree.AscendGreaterOrEqual(ds.at(path+"\x00"), func(d *directory) bool {
		next = append(next, d)
		return len(next) < most
	})
	return next
}
