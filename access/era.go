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

// keptEra returns what the Note keeps, if it keeps anything. What cannot be read, or is no
// note of these, is as good as other rules: the present ones begin anew.
func (g *Guard) keptEra() (kept keptEra, ok bool) {
	if g.config.Note == nil {
		return keptEra{}, false
	}
	text, err := g.config.Note.Load()
	if err != nil {
		g.config.Logger.Error("since when the rules of the access file hold cannot be read; watches that go on get the present state first", "error", err)
		return keptEra{}, true
	}
	if len(text) == 0 {
		return keptEra{}, false
	}
	var digest string
	if n, _ := fmt.Sscanf(string(text), eraForm, &digest, &kept.since); n != 2 {
		return keptEra{}, true
	}
	sum, err := hex.DecodeString(digest)
	if err != nil || copy(kept.digest[:], sum) != len(kept.digest) {
		return keptEra{}, true
	}
	return kept, true
}

// keepEra has the Note keep it. Where that fails the next start finds other rules, and has
// the present ones begin anew.
func (g *Guard) keepEra(e keptEra) {
	if g.config.Note == nil {
		return
	}
	if err := g.config.Note.Save(fmt.Appendf(nil, eraForm, hex.EncodeToString(e.digest[:]), e.since)); err != nil {
		g.config.Logger.Error("since when the rules of the access file hold cannot be saved; after a restart watches that go on get the present state first", "error", err)
	}
}
