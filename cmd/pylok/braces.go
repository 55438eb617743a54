package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pylok/pylok/lock"
)

// maxExpanded is how many names braces may make: as many as a set may have.
const maxExpanded = lock.MaxSetNames

// expandBraces returns what a text with braces stands for, as shells have it: {a,b} one of
// them, {1..3} and {a..f} a range, {01..12} one whose numbers have zeros before them. They
// nest. A shell leaves them alone in quotes, and some always do.
func expandBraces(text string) ([]string, error) {
	words, rest, err := expandWord(text, false)
	switch {
	case err != nil:
		return nil, err
	case rest != "":
		return nil, fmt.Errorf("%q has a } without its {", text)
	}
	return words, nil
}

// expandWord expands text up to its end; inside braces, up to a comma or a closing brace,
// with which rest begins.
func expandWord(text string, inside bool) (words []string, rest string, err error) {
	words = []string{""}
	for text != "" {
		i := strings.IndexAny(text, "{},")
		if i < 0 {
			i = len(text)
		}
		words = product(words, []string{text[:i]})
		text = text[i:]
		switch {
		case text == "":
		case text[0] == '{':
			var choices []string
			if choices, text, err = expandBrace(text[1:]); err != nil {
				return nil, "", err
			}
			words = product(words, choices)
			if len(words) > maxExpanded {
				return nil, "", fmt.Errorf("the braces make more than %d names", maxExpanded)
			}
		case inside || text[0] == '}':
			return words, text, nil
		default: // a comma outside of braces is one of the text
			words = product(words, []string{","})
			text = text[1:]
		}
	}
	if inside {
		return nil, "", fmt.Errorf("a { is not closed")
	}
	return words, "", nil
}

// expandBrace expands what follows a {, up to its }, and returns what comes after that.
func expandBrace(text string) (choices []string, rest string, err error) {
	if end := strings.IndexAny(text, "{},"); end >= 0 && text[end] == '}' {
		choices, err := expandRange(text[:end])
		return choices, text[end+1:], err
	}
	for i := 0; ; i++ {
		words, rest, err := expandWord(text, true)
		if err != nil {
			return nil, "", err
		}
		if i == 0 && rest[0] == '}' { // nothing to choose from, as in {a{1..3}}
			return nil, "", fmt.Errorf("{%s is neither a list, such as {a,b}, nor a range, such as {1..3}", text[:len(text)-len(rest)+1])
		}
		if choices = append(choices, words...); len(choices) > maxExpanded {
			return nil, "", fmt.Errorf("the braces make more than %d names", maxExpanded)
		}
		if text = rest[1:]; rest[0] == '}' {
			return choices, text, nil
		}
	}
}

// expandRange expands what stands between braces that have no comma: FROM..TO.
func expandRange(text string) (words []string, err error) {
	from, to, isRange := strings.Cut(text, "..")
	if !isRange {
		return nil, fmt.Errorf("{%s} is neither a list, such as {a,b}, nor a range, such as {1..3}", text)
	}
	if isLetter(from) && isLetter(to) {
		for c := from[0]; ; {
			words = append(words, string(rune(c)))
			switch {
			case c == to[0]:
				return words, nil
			case c < to[0]:
				c++
			default:
				c--
			}
		}
	}
	first, err := parseBound(from)
	if err != nil {
		return nil, err
	}
	last, err := parseBound(to)
	if err != nil {
		return nil, err
	}
	if max(first, last)-min(first, last) >= maxExpanded {
		return nil, fmt.Errorf("{%s} makes more than %d names", text, maxExpanded)
	}
	width := 0
	if len(from) > 1 && from[0] == '0' || len(to) > 1 && to[0] == '0' {
		width = max(len(from), len(to))
	}
	step := 1
	if first > last {
		step = -1
	}
	for n := first; ; n += step {
		words = append(words, fmt.Sprintf("%0*d", width, n))
		if n == last {
			return words, nil
		}
	}
}

// parseBound reads a bound of a range of numbers.
func parseBound(text string) (int, error) {
	const digits = 9
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || len(text) > digits {
		return 0, fmt.Errorf("%q is no bound of a range; give two letters, or two numbers of up to %d digits", text, digits)
	}
	return int(n), nil
}

func isLetter(text string) bool {
	return len(text) == 1 && ('a' <= text[0] && text[0] <= 'z' || 'A' <= text[0] && text[0] <= 'Z')
}

// product joins each of heads with each of tails.
func product(heads, tails []string) []string {
	words := make([]string, 0, len(heads)*len(tails))
	for _, head := range heads {
		for _, tail := range tails {
			words = append(words, head+tail)
		}
	}
	return words
}
