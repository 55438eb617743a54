package filestore

import (
	"errors"
	"fmt"
	"io/fs"
)

// Note is a short text that who opens the Store keeps beside its locks, over restarts.
type Note struct {
	store *Store
	name  string
}

// Note returns the note of a name, which is one word.
func (s *Store) Note(name string) *Note { return &Note{s, ownDir + "/" + name + ".note"} }

// Load returns the note's text; empty: there is none.
func (n *Note) Load() ([]byte, error) {
	text, err := readWhole(n.store.files, n.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", n.name, err)
	}
	return text, nil
}

// Save replaces the note's text. When it returns nil the text survives a power cut; a crash
// meanwhile leaves that or the one before.
func (n *Note) Save(text []byte) error {
	err := writeWhole(n.store.files, n.name, text)
	if err == nil {
		err = n.store.files.SyncDir(ownDir)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", n.name, err)
	}
	return nil
}
