package access

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/pylok/pylok/lock"
)

// era is since when a policy holds.
type era struct {
	policy *Policy
	since  lock.Revision // what was told up to there may be by other rules
}

// since returns up to which revision changes may have been told by other rules than the
// policy's, which is the present one.
func (g *Guard) since(ctx context.Context, policy *Policy) (lock.Revision, error) {
	next, isNew, err := g.eraOf(ctx, policy)
	if err != nil {
		return 0, err
	}
	if isNew { // not with mu held, for the disk may hang
		g.keepEra(keptEra{policy.Digest(), next.since})
	}
	return next.since, nil
}

// eraOf returns the era of the present policy, and whether it begins now.
func (g *Guard) eraOf(ctx context.Context, policy *Policy) (_ *era, isNew bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.era != nil && g.era.policy == policy {
		return g.era, false, nil
	}
	next := &era{policy: policy}
	kept, isKept := keptEra{}, true
	if g.era == nil {
		kept, isKept = g.keptEra()
	}
	switch {
	case g.era == nil && isKept && kept.digest == policy.Digest():
		next.since = kept.since
	case g.era == nil && !isKept && policy == nil: // there were never any rules
	default:
		if next.since, err = g.inner.Revision(ctx); err != nil {
			return nil, false, err
		}
		isNew = true
	}
	g.era = next
	return next, isNew, nil
}

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
