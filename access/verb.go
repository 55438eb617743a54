package access

import "fmt"

// Verb is what a rule allows to do to a lock.
type Verb uint8

// The verbs. Lock, Break and Freeze imply View of the same locks; Admin does not.
const (
	// View: Status, List, Watch and History show the lock.
	View Verb = iota + 1
	// Lock: take it, wait for it, renew, hand over and release one's own hold, end one that
	// is stale, ask the holder of another.
	Lock
	// Break: end or replace somebody else's hold, put a waiter out of the line.
	Break
	// Freeze: freeze the lock and all below it, and end that; with Lock, go through a freeze.
	Freeze
	// Admin: what concerns the server and not one lock.
	Admin
)

var verbs = map[Verb]string{View: "view", Lock: "lock", Break: "break", Freeze: "freeze", Admin: "admin"}

// String returns the verb's word in the access file.
func (v Verb) String() string {
	if word, ok := verbs[v]; ok {
		return word
	}
	return fmt.Sprintf("Verb(%d)", uint8(v))
}

// ParseVerb returns the verb with a word, or an error that names the words there are.
func ParseVerb(word string) (Verb, error) {
	for verb, name := range verbs {
		if name == word {
			return verb, nil
		}
	}
	return 0, fmt.Errorf("%q is no verb; there are view, lock, break, freeze and admin", word)
}
