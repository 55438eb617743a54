package access

import (
	"encoding/hex"
	"fmt"

	"github.com/pylok/pylok/lock"
)

// keptEra is what a Note keeps: which rules hold, and since when.
type keptEra struct {
	digest [32]byte
	since  lock.Revision
}

// eraForm is the text of a Note.
const eraForm = "rules %s since revision %d\n"

// keptEra returns what the Note keeps, if it keeps anything. A text that is no note of
// these is as good as none: the rules then begin anew.
func (g *Guard) keptEra() (kept keptEra, ok bool, err error) {
	if g.config.Note == nil {
		return keptEra{}, false, nil
	}
	text, err := g.config.Note.Load()
	if err != nil {
		return keptEra{}, false, fmt.Errorf("since when the rules of the access file hold: %w", err)
	}
	if len(text) == 0 {
		return keptEra{}, false, nil
	}
	var digest string
	if n, _ := fmt.Sscanf(string(text), eraForm, &digest, &kept.since); n != 2 {
		return keptEra{}, true, nil
	}
	sum, err := hex.DecodeString(digest)
	if err != nil || copy(kept.digest[:], sum) != len(kept.digest) {
		return keptEra{}, true, nil
	}
	return kept, true, nil
}

// keepEra has the Note keep it.
func (g *Guard) keepEra(e keptEra) error {
	if g.config.Note == nil {
		return nil
	}
	if err := g.config.Note.Save(fmt.Appendf(nil, eraForm, hex.EncodeToString(e.digest[:]), e.since)); err != nil {
		return fmt.Errorf("noting since when the rules of the access file hold: %w", err)
	}
	return nil
}
