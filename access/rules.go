package access

import (
	"maps"
	"slices"
	"strings"

	"github.com/pylok/pylok/lock"
)

// rule allows something.
type rule struct {
	line  int // of the access file
	who   []string
	may   []Verb
	locks []lock.Pattern
}

// Words of who.
const (
	everyListed = "*"      // every caller that an entry describes
	groupPrefix = "group:" // a group's name follows
)

// rights is what rules allow to one word of who.
type rights struct {
	locks [Freeze + 1]patterns // by verb, implied ones included
	admin bool
}

// add adds what a rule allows.
func (r *rights) add(allowed rule) {
	for _, verb := range allowed.may {
		if verb == Admin {
			r.admin = true
			continue
		}
		for _, pattern := range allowed.locks {
			r.locks[verb].add(pattern)
			r.locks[View].add(pattern)                                 // every other verb implies it
			if tree := treeOf(pattern); verb == Freeze && tree != "" { // who may freeze P by P/**
				r.locks[View].add(lock.MustParsePattern(tree))
			}
		}
	}
}

// allow reports whether the rights allow v to a lock, whose judged name it is, which does
// not count for Admin.
func (r *rights) allow(v Verb, name string) bool {
	switch {
	case v == Admin:
		return r.admin
	case v > Freeze:
		return false
	}
	return r.locks[v].match(name)
}

// patterns are patterns of which a name is to match one. How long that takes hardly depends
// on how many there are, as long as few have stars in the middle.
type patterns struct {
	texts map[string]struct{} // all of them
	all   bool                // ** is one of them
	names map[string]struct{} // those that are a name
	trees map[string]struct{} // the P of each P/** whose P has no star
	rest  map[string][]lock.Pattern
	// rest has the others by their first segment, or by "" where that has a star.
}

func (s *patterns) add(p lock.Pattern) {
	text := p.String()
	if _, there := s.texts[text]; there {
		return
	}
	put(&s.texts, text)
	tree := treeOf(p)
	switch {
	case text == "**":
		s.all = true
	case p.IsName():
		put(&s.names, text)
	case tree != "":
		put(&s.trees, tree)
	default:
		first, _, deeper := strings.Cut(p.Prefix(), "/")
		if !deeper {
			first = ""
		}
		if s.rest == nil {
			s.rest = make(map[string][]lock.Pattern)
		}
		s.rest[first] = append(s.rest[first], p)
	}
}

// treeOf returns the P of a pattern P/** whose P has no star; empty: it is none.
func treeOf(p lock.Pattern) string {
	tree, isTree := strings.CutSuffix(p.String(), "/**")
	if !isTree || strings.Contains(tree, "*") {
		return ""
	}
	return tree
}

// judged returns the name by which the rules judge a lock: of a shared hold that of the lock
// that it is of.
func judged(name string) string {
	const slot = "/_+" // as lock.Name.IsSlot has it
	for {
		i := strings.LastIndexByte(name, '/')
		if i <= 0 || !strings.HasPrefix(name[i:], slot) {
			return name
		}
		name = name[:i]
	}
}

func put(set *map[string]struct{}, text string) {
	if *set == nil {
		*set = make(map[string]struct{})
	}
	(*set)[text] = struct{}{}
}

// match reports whether one of the patterns selects a name.
func (s *patterns) match(name string) bool {
	if s.all {
		return true
	}
	if _, ok := s.names[name]; ok {
		return true
	}
	if s.above(name) {
		return true
	}
	if s.rest == nil {
		return false
	}
	selects := func(p lock.Pattern) bool { return p.MatchText(name) }
	first, _, deeper := strings.Cut(name, "/")
	return deeper && slices.ContainsFunc(s.rest[first], selects) || slices.ContainsFunc(s.rest[""], selects)
}

// above reports whether there is a P/** for a P that a name is in.
func (s *patterns) above(name string) bool {
	if len(s.trees) == 0 {
		return false
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if _, ok := s.trees[name[:i]]; ok {
			return true
		}
	}
	return false
}

// matchTree reports whether one of the patterns, alone, selects all that is in a name:
// **, or P/** where P is the name or one that it is in. In _all are all.
func (s *patterns) matchTree(name string) bool {
	if name == lock.AllName {
		return s.all
	}
	_, itself := s.trees[name]
	return s.all || itself || s.above(name)
}

// sorted returns the texts of the patterns of several sets, each once.
func sorted(sets []*patterns) []string {
	together := make(map[string]struct{})
	for _, s := range sets {
		maps.Copy(together, s.texts)
	}
	return slices.Sorted(maps.Keys(together))
}
