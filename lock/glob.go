package lock

import "strings"

// glob is the part of a pattern from its first star on, as a machine that is in several
// states at a time: in state i the part of the name that has been read matches the first
// i steps of the glob. A step is a byte or a star. A set of states is a row of bits, so
// that a byte of a name takes a few operations for 64 steps, whatever the stars are: no
// pattern can make matching slow.
type glob struct {
	end        int                     // the state in which all of the glob has matched
	words      int                     // of a set of states
	bytes      [128]*[globWords]uint64 // by the byte of the name: states that it moves on by one
	stays      [globWords]uint64       // states that any byte leaves as they are: ** and **/
	staysIn    [globWords]uint64       // states that a byte within a segment does: *
	skips      [globWords]uint64       // states whose step may match nothing: * and **
	skipsStart [globWords]uint64       // states whose step may at the start of a segment: **/
}

// globWords is how many words have room for the states of the longest glob.
const globWords = MaxNameBytes/64 + 1

// newGlob returns the machine for pattern from a byte on.
func newGlob(pattern string, from int) *glob {
	g := &glob{}
	for i := from; i < len(pattern); {
		word, bit := g.end/64, uint64(1)<<(g.end%64)
		atStart := i == 0 || pattern[i-1] == '/'
		switch rest := pattern[i:]; {
		case atStart && strings.HasPrefix(rest, "**/"):
			i += len("**/")
			if again := g.end - 1; again >= 0 && g.skipsStart[again/64]>>(again%64)&1 == 1 {
				continue // the second of two says nothing new
			}
			g.stays[word] |= bit
			g.skipsStart[word] |= bit
		case strings.HasPrefix(rest, "**"):
			i += len("**")
			g.stays[word] |= bit
			g.skips[word] |= bit
		case rest[0] == '*':
			i++
			g.staysIn[word] |= bit
			g.skips[word] |= bit
		default:
			i++
			if g.bytes[rest[0]] == nil {
				g.bytes[rest[0]] = new([globWords]uint64)
			}
			g.bytes[rest[0]][word] |= bit
		}
		g.end++
	}
	g.words = g.end/64 + 1
	return g
}

// none is the states that a byte moves on by one which is not in the glob.
var none [globWords]uint64

// match reports whether the glob matches a name from a byte on.
func (g *glob) match(name string, from int) bool {
	var room [globWords]uint64
	states := room[:g.words]
	states[0] = 1
	g.skip(states, from == 0 || name[from-1] == '/')
	for i := from; i < len(name); i++ {
		c := name[i]
		moves := g.bytes[c]
		if moves == nil {
			moves = &none
		}
		var left, carry uint64
		for w, now := range states {
			stay := g.stays[w]
			if c != '/' {
				stay |= g.staysIn[w]
			}
			move := now & moves[w]
			states[w] = now&stay | move<<1 | carry
			carry = move >> 63
			left |= states[w]
		}
		if left == 0 {
			return false
		}
		g.skip(states, c == '/')
	}
	return states[g.end/64]>>(g.end%64)&1 == 1
}

// skip adds the states that are reached by steps that match nothing. Of those at most
// two follow one another: **/ and then * or **.
func (g *glob) skip(states []uint64, atStart bool) {
	if atStart {
		skipTo(states, g.skipsStart[:])
	}
	skipTo(states, g.skips[:])
}

func skipTo(states, skips []uint64) {
	var carry uint64
	for w, now := range states {
		skip := now & skips[w]
		states[w] = now | skip<<1 | carry
		carry = skip >> 63
	}
}
